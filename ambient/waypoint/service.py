"""One port of a service as Envoy's resources: its internal listener, its routes, its clusters and their endpoints.

What changes often is where a change costs nothing: policies and routes in the route configuration, endpoints in the
load assignment. The listener depends on the protocol, and on whose tokens are believed: Envoy knows no other place for
that.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from ambient.kube.traffic_values import TrafficPolicy
from ambient.waypoint.access import METADATA, PEER, http_log
from ambient.waypoint.asking import ask_filters, without_answers
from ambient.waypoint.balance import balancing
from ambient.waypoint.exports import NO_EXPORTS, Exports, exported_log, tracing
from ambient.waypoint.front import Backend, Front, FrontPort, Place, Protocol, Subset
from ambient.waypoint.near import groups
from ambient.waypoint.origination import begun
from ambient.waypoint.rbac import is_layer_4
from ambient.waypoint.resilience import http2_options, http_options, resilience
from ambient.waypoint.route_filters import route_filters
from ambient.waypoint.routes import cluster_name, routes
from ambient.waypoint.streams import stream_chain, streams_of, tls_inspector
from ambient.waypoint.through import listener_name
from ambient.waypoint.tokens import token_filters, without_claims
from ambient.waypoint.tunnel import (
    NOBODY_INTERNAL,
    ORIGINAL_DST,
    ORIGINATE,
    TOLD,
    entrance,
    inner,
    manager,
    original_dst_filter,
    rbac_filters,
    router,
)
from ambient.waypoint.typed import ADS, Message, http_protocol, typed
from ambient.waypoint.wild import named, wild_filters, wild_found, wild_hosts, wild_of

SNIFF: Final = "0.2s"
"""How long a connection to a port of unknown protocol may say nothing before it is taken for no HTTP."""
HELLO: Final = "5s"
"""The same where routes ask which name TLS wants: who is slow must not be taken for somebody without TLS."""
_MOST_WEIGHT: Final = 2**31
RAW: Final = typed("envoy.transport_sockets.raw_buffer", "transport_sockets.raw_buffer.v3.RawBuffer")
_XFCC: Final = f"%FILTER_STATE({TOLD}:PLAIN)%"


def kinds(protocol: Protocol) -> tuple[str, ...]:
    """How a port of this protocol may be used."""
    return {Protocol.TCP: ("tcp",), Protocol.AUTO: ("http", "tcp")}.get(protocol, ("http",))


def served(front: Front, port: FrontPort) -> tuple[str, ...]:
    """How the port may be used. Where nobody says what is spoken and a policy asks for HTTP, only HTTP is let through:
    of anything else it cannot be told before the first byte of an answer whether the policy lets it. The same where
    tokens are looked at, or the owner's routes say what may be asked for, and how often: who says nothing at first
    would be carried unread, past all of it."""
    asked = front.tokens or port.number in front.read or not all(is_layer_4(policy) for policy in front.policies)
    return ("http",) if port.protocol is Protocol.AUTO and asked else kinds(port.protocol)


def listener(
    front: Front, port: FrontPort, used: tuple[str, ...], *, xfcc: bool, exports: Exports = NO_EXPORTS
) -> Message:
    """The internal listener that CONNECTs to the port lead to. `used`: which of `kinds` are served."""
    exports = front.exports or exports
    streams = streams_of(front, port.number) if "tcp" in used else []
    by_name = any(one.names for one in streams)
    chains = [_http_chain(front, port.number, exports, xfcc=xfcc)] if "http" in used else []
    chains += [stream_chain(front, one, number, exports) for number, one in enumerate(streams)]
    made: Message = {
        "name": entrance(front, port.number, used),
        "internal_listener": {},
        "listener_filters": [original_dst_filter(), *([tls_inspector()] if by_name else [])],
        "filter_chains": chains,
    }
    if by_name:
        made["listener_filters_timeout"] = HELLO
        made["continue_on_listener_filters_timeout"] = True
    if port.protocol is Protocol.AUTO and "tcp" in used:
        # Where HTTP alone is served there is nothing to find out: whoever says nothing for long is waited for.
        inspector = typed("envoy.filters.listener.http_inspector", "filters.listener.http_inspector.v3.HttpInspector")
        made["listener_filters"].append(inspector)
        made["listener_filters_timeout"] = HELLO if by_name else SNIFF
        made["continue_on_listener_filters_timeout"] = True
        unread = {"transport_protocol": "raw_buffer"} if by_name else {}
        chains[0]["filter_chain_match"] = {**unread, "application_protocols": ["http/1.0", "http/1.1", "h2c"]}
    return made


def _http_chain(front: Front, port: int, exports: Exports, *, xfcc: bool) -> Message:
    log = http_log(front)
    name = cluster_name(front.hostname, port, "http")
    told = {"header": {"key": "x-forwarded-client-cert", "value": _XFCC}, "append_action": "OVERWRITE_IF_EXISTS_OR_ADD"}
    # What a client says of itself in this header is taken away in any case.
    mutation = {"append": told} if xfcc else {"remove": "x-forwarded-client-cert"}
    wild = wild_of(front, port)
    # A port that is another one there says nothing to the server.
    plain = {"strip_matching_host_port": True} if wild is not None and wild.port != port else {}
    early = [*without_claims(front.tokens), *without_answers(front.providers)]
    connections = manager(
        stat_prefix=name,
        server_name="istio-envoy",
        use_remote_address=True,
        internal_address_config=dict(NOBODY_INTERNAL),
        forward_client_cert_details="ALWAYS_FORWARD_ONLY",
        **plain,
        normalize_path=True,
        merge_slashes=True,
        path_with_escaped_slashes_action="UNESCAPE_AND_FORWARD",
        **({"early_header_mutation_extensions": early} if early else {}),
        common_http_protocol_options={"headers_with_underscores_action": "ALLOW"},
        upgrade_configs=[{"upgrade_type": "websocket"}],
        stream_idle_timeout="0s",
        access_log=[log, *exported_log(exports, log)],
        **tracing(exports, front.hostname, f"%FILTER_STATE({PEER}:PLAIN)%"),
        rds={"route_config_name": inner(front, port), "config_source": dict(ADS)},
        http_filters=[
            typed(
                "ambient.xfcc",
                "filters.http.header_mutation.v3.HeaderMutation",
                mutations={"request_mutations": [mutation]},
            ),
            *ask_filters(front.providers),
            *token_filters(front.tokens),
            *rbac_filters(),
            *route_filters(chosen_anew=bool(front.tokens or front.providers)),
            *wild_filters(front, port),
            router(),
        ],
    )
    return {"name": "http", "filters": [connections]}


def route_table(front: Front, port: int, filters: Message) -> Message:
    """Where requests to a port go; `filters` is what each of them has to pass first (per-filter configuration).

    No route configures a filter that judges: that would take the place of these.
    """
    name = cluster_name(front.hostname, port, "http")
    host = {
        "name": name,
        "domains": ["*"],
        "routes": routes(front, port),
        **({"typed_per_filter_config": filters} if filters else {}),
    }
    wild = wild_of(front, port)
    hosts = [host] if wild is None else wild_hosts(wild, port, host)
    return {"name": inner(front, port), "validate_clusters": False, "virtual_hosts": hosts}


def inner_cluster(front: Front, port: int, used: tuple[str, ...]) -> Message:
    """Leads into the internal listener of the port that is used so."""
    name = entrance(front, port, used)
    address = {"envoy_internal_address": {"server_listener_name": name}}
    return {
        "name": name,
        "type": "STATIC",
        "load_assignment": {
            "cluster_name": name,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": address}}]}],
        },
        "transport_socket": internal(()),
        **resilience(TrafficPolicy()),
    }


def cluster(front: Front, port: FrontPort, kind: str, subset: Subset | None = None) -> Message:
    """The endpoints of a port, or of a subset of them, one by one; which they are comes by EDS, but for those that have
    a name and no address: these are looked up by the proxy."""
    name = cluster_name(front.hostname, port.number, kind, subset.name if subset else "")
    part = subset or port
    traffic = part.traffic
    spoken = RAW if part.tls is None else begun(part.tls)
    made: Message = {
        "name": name,
        **_shared(traffic),
        "metadata": {"filter_metadata": {"istio": {"host": front.hostname}}},
        **protocol_options(port, kind, traffic),
    }
    if port.wild is not None and subset is None and kind in ("http", "tcp"):
        return {**made, **wild_found(front), "transport_socket": spoken}
    return {
        **made,
        **_found(front, port, kind, subset),
        **balancing(traffic.balancer),
        "transport_socket_matches": [
            {"name": "plain", "match": {"tunnel": "none"}, "transport_socket": spoken},
            {"name": "tunnel", "match": {}, "transport_socket": internal((ORIGINAL_DST, METADATA), spoken)},
        ],
    }


def _shared(traffic: TrafficPolicy) -> Message:
    """What keeps it from being overrun; and where localities have shares, these count."""
    made = resilience(traffic)
    spread = traffic.balancer.spread if traffic.balancer is not None else None
    if spread is not None and spread.enabled and spread.distribute:
        made["common_lb_config"] = {**made["common_lb_config"], "locality_weighted_lb_config": {}}
    return made


def protocol_options(port: FrontPort, kind: str, traffic: TrafficPolicy) -> Message:
    """What a cluster speaks, as a field of it; {} where it carries anything."""
    if kind == "ask-http":
        return http_protocol(explicit_http_config={"http_protocol_options": {}})
    if kind == "tcp":
        return {}
    config: Message = {"http2_protocol_options": http2_options(traffic)}
    return http_protocol(
        **(
            {"explicit_http_config": config}
            if port.protocol is Protocol.HTTP2 or (traffic.pool is not None and traffic.pool.upgrade == "UPGRADE")
            else {"use_downstream_protocol_config": {"http_protocol_options": {}, **config}}
        ),
        **({"common_http_protocol_options": common} if (common := http_options(traffic)) else {}),
        **named(port),
    )


def _found(front: Front, port: FrontPort, kind: str, subset: Subset | None) -> Message:
    if any(one.named for one in (subset or port).backends):
        return {
            "type": "STRICT_DNS",
            "respect_dns_ttl": True,
            "dns_lookup_family": "V4_PREFERRED",
            # Nobody waits for a name that nobody has.
            "wait_for_warm_on_init": False,
            "load_assignment": endpoints(front, port, kind, subset),
        }
    name = cluster_name(front.hostname, port.number, kind, subset.name if subset else "")
    return {"type": "EDS", "eds_cluster_config": {"eds_config": dict(ADS), "service_name": name}}


def endpoints(
    front: Front, port: FrontPort, kind: str, subset: Subset | None = None, place: Place | None = None
) -> Message:
    """The load assignment of `cluster`, for proxies in `place`. Weights keep their ratio where Envoy would refuse their
    sum, 32 bits wide."""
    name = cluster_name(front.hostname, port.number, kind, subset.name if subset else "")
    backends = (subset or port).backends
    if any(one.named for one in backends):
        # Names are looked up for sockets, and tunnels have none.
        backends = tuple(one for one in backends if not one.identity and not one.through)
    part = 1 + sum(one.weight for one in backends) // _MOST_WEIGHT
    balancer = (subset or port).traffic.balancer
    found = []
    for number, group in enumerate(groups(backends, port.near, balancer.spread if balancer else None, place)):
        here: Message = {"lb_endpoints": [_endpoint(one, max(one.weight // part, 1)) for one in group.backends]}
        if group.priority:
            here["priority"] = group.priority
        if group.share:
            # Groups of one priority are told apart by their localities; whose shares they are is no matter to Envoy.
            here |= {"locality": {"sub_zone": f"share-{number}"}, "load_balancing_weight": group.share}
        found.append(here)
    return {"cluster_name": name, "endpoints": found}


def _endpoint(backend: Backend, weight: int) -> Message:
    socket: Message
    if not backend.identity and not backend.through:
        socket = {"socket_address": {"address": str(backend.address), "port_value": backend.port}}
        metadata: Message = {"envoy.transport_socket_match": {"tunnel": "none"}}
    else:
        # The id keeps endpoints apart that share the one internal listener.
        where = listener_name(backend.through) if backend.through else ORIGINATE
        socket = {"envoy_internal_address": {"server_listener_name": where, "endpoint_id": backend.authority}}
        metadata = {ORIGINAL_DST: {"local": backend.authority}}
        if backend.identity:
            metadata[METADATA] = {"san": backend.identity}
    return {
        "endpoint": {"address": socket},
        "load_balancing_weight": weight,
        "metadata": {"filter_metadata": {**metadata, "istio": {"workload": backend.told}}},
    }


def internal(metadata: Iterable[str], spoken: Message = RAW) -> Message:
    """The transport into an internal listener; `metadata` of the endpoint is handed on. `spoken`: within."""
    return typed(
        "envoy.transport_sockets.internal_upstream",
        "transport_sockets.internal_upstream.v3.InternalUpstreamTransport",
        transport_socket=spoken,
        passthrough_metadata=[{"kind": {"host": {}}, "name": name} for name in metadata],
    )
