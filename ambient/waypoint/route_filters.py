"""What single routes ask of filters: limits, faults, CORS, sessions. Pure.

The filters stand in every chain, after those that judge, and are disabled: a route that asks for one of them enables
it for its requests, and changes no listener. Nothing that judges may be configured by a route: that would take the
virtual host's place.
"""

from __future__ import annotations

from typing import Final

from ambient.kube.routing import Cors, Fault, RouteRule, Session
from ambient.waypoint.limits import limit_filter, limits_of_route
from ambient.waypoint.route_match import string_match
from ambient.waypoint.shared_limits import shared_limit_filters, shared_limits_of_route
from ambient.waypoint.typed import Message, any_of, seconds, typed

CORS_FILTER: Final = "ambient.cors"
FAULT_FILTER: Final = "ambient.fault"
SESSION_FILTER: Final = "ambient.session"
_SESSION: Final = "filters.http.stateful_session.v3.StatefulSession"
_SESSIONS: Final = "envoy.extensions.http.stateful_session"
_METHODS: Final = "GET,HEAD,POST,PUT,DELETE,CONNECT,OPTIONS,TRACE,PATCH"


def route_filters(*, chosen_anew: bool) -> list[Message]:
    """For the chain, in the order in which requests pass them.

    Each is passed by those requests alone whose route configures it; the others, nearly all, are spared what six
    idle filters cost. Which that are is settled by the route that is chosen first: so where a filter that comes before
    may have it chosen anew (`chosen_anew`), every request passes them all."""
    filters = [
        limit_filter(),
        *shared_limit_filters(),
        typed(FAULT_FILTER, "filters.http.fault.v3.HTTPFault"),
        typed(CORS_FILTER, "filters.http.cors.v3.Cors"),
        typed(SESSION_FILTER, _SESSION),
    ]
    return filters if chosen_anew else [{**one, "disabled": True} for one in filters]


def of_route(rule: RouteRule) -> Message:
    """The field of one route; {} where it asks for nothing."""
    made: Message = {}
    if rule.fault is not None:
        made[FAULT_FILTER] = _fault(rule.fault)
    if rule.cors is not None:
        made[CORS_FILTER] = _cors(rule.cors)
    if rule.session is not None:
        made[SESSION_FILTER] = _session(rule.session)
    made.update(limits_of_route(rule.limits))
    made.update(shared_limits_of_route(rule.limits))
    return {"typed_per_filter_config": made} if made else {}


def _fault(fault: Fault) -> Message:
    made: Message = {}
    if fault.delay_ms:
        made["delay"] = {"fixed_delay": seconds(fault.delay_ms), "percentage": _share(fault.delay_share)}
    if fault.status is not None:
        made["abort"] = {"http_status": fault.status, "percentage": _share(fault.abort_share)}
    elif fault.grpc is not None:
        made["abort"] = {"grpc_status": fault.grpc, "percentage": _share(fault.abort_share)}
    return any_of("envoy.extensions.filters.http.fault.v3.HTTPFault", **made)


def _share(millionths: int) -> Message:
    return {"numerator": millionths, "denominator": "MILLION"}


def _cors(cors: Cors) -> Message:
    made: Message = {
        "allow_origin_string_match": [string_match(one) for one in cors.origins],
        "forward_not_matching_preflights": cors.forward,
    }
    if cors.methods:
        # With credentials a browser takes the star for a name, so it is written out (but see `preflights`).
        every = _METHODS if cors.credentials else "*"
        made["allow_methods"] = every if "*" in cors.methods else ",".join(cors.methods)
    if cors.headers:
        made["allow_headers"] = ",".join(cors.headers)
    if cors.exposed:
        made["expose_headers"] = ",".join(cors.exposed)
    if cors.max_age_s is not None:
        made["max_age"] = str(cors.max_age_s)
    if cors.credentials:
        made["allow_credentials"] = True
    return any_of("envoy.extensions.filters.http.cors.v3.CorsPolicy", **made)


def _session(session: Session) -> Message:
    if session.header:
        config = any_of(f"{_SESSIONS}.header.v3.HeaderBasedSessionState", name=session.name)
        state = {"name": "envoy.http.stateful_session.header", "typed_config": config}
    else:
        cookie: Message = {"name": session.name, "path": "/"}
        if session.ttl_ms:
            cookie["ttl"] = seconds(session.ttl_ms)
        config = any_of(f"{_SESSIONS}.cookie.v3.CookieBasedSessionState", cookie=cookie)
        state = {"name": "envoy.http.stateful_session.cookie", "typed_config": config}
    return any_of(
        "envoy.extensions.filters.http.stateful_session.v3.StatefulSessionPerRoute",
        stateful_session={"session_state": state},
    )
