"""CUSTOM policies: somebody outside is asked whether a request may pass, by Envoy's ext_authz. Pure.

For each provider three filters: one that only finds out whether a CUSTOM policy matches, one that asks where it does,
and one that notes that it was got past. A rule of the DENY filter refuses what matches and was not noted: whoever has
these rules and, for whatever reason, not those filters lets nothing pass that would have to be asked for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Final

from ambient.kube.mesh_config import Provider
from ambient.waypoint.front import Front, FrontPort, Policy, Protocol
from ambient.waypoint.routes import cluster_name
from ambient.waypoint.typed import HASHABLE, Message, filter_state, seconds, typed

_RBAC: Final = "filters.http.rbac.v3.RBAC"
_ASK: Final = "filters.http.ext_authz.v3.ExtAuthz"
_STATE: Final = "filters.http.set_filter_state.v3.Config"
_NOTED: Final = "1"
_OWN: Final = frozenset(("authorization", "cookie", "host", "content-length"))
"""Headers that are a client's own to send, and that who is asked is told in any case."""


def asked(front: Front, policy: Policy) -> Provider | None:
    """Who is asked about what a policy matches; None: nobody, it is no CUSTOM one or its provider is not known."""
    if policy.action != "CUSTOM" or policy.dry_run:
        return None
    return next((one for one in front.providers if one.name == policy.provider), None)


def match_filter(provider: Provider) -> str:
    """Name of the filter whose rules are the policies that ask this provider."""
    return f"ambient.custom.{provider.name}"


def match_prefix(provider: Provider) -> str:
    """What its verdict's name begins with."""
    return f"custom_{provider.name}_"


def not_noted(provider: Provider) -> Message:
    """A principal: the request has not got past the provider."""
    return {"not_id": {"filter_state": {"key": _key(provider), "string_match": {"exact": _NOTED}}}}


def _key(provider: Provider) -> str:
    return f"ambient.asked.{provider.name}"


def ask_filters(providers: Iterable[Provider]) -> list[Message]:
    """For the chain, before tokens are looked at: who is asked has to see them."""
    return [one for provider in providers for one in _filters(provider)]


def _filters(provider: Provider) -> Iterator[Message]:
    yield typed(match_filter(provider), _RBAC)
    yield typed(f"ambient.ask.{provider.name}", _ASK, **_ask(provider))
    note = filter_state(_key(provider), _NOTED, factory=HASHABLE, shared="")
    yield typed(f"ambient.noted.{provider.name}", _STATE, on_request_headers=[note])


def without_answers(providers: Iterable[Provider]) -> list[Message]:
    """What takes from each request the headers that only an answer may fill."""
    mutation = "http.early_header_mutation.header_mutation.v3.HeaderMutation"
    names = {name for one in providers for name in _filled(one)}
    if not names:
        return []
    return [typed("ambient.answers", mutation, mutations=[{"remove": name} for name in sorted(names)])]


def _filled(provider: Provider) -> Iterator[str]:
    sent = {name.lower() for name in provider.asked_with} | _OWN
    for name in provider.upstream:
        if name.lower() not in sent and "*" not in sent:
            yield name.lower()


def _ask(provider: Provider) -> Message:
    name = cluster_name(provider.hostname, provider.port, f"ask-{provider.kind}")
    matched = {"key": f"{match_prefix(provider)}shadow_engine_result"}
    made: Message = {
        "transport_api_version": "V3",
        "stat_prefix": provider.name,
        "failure_mode_allow": provider.fail_open,
        "status_on_error": {"code": provider.status},
        "clear_route_cache": provider.route_again,
        "filter_enabled_metadata": {
            "filter": "envoy.filters.http.rbac",
            "path": [matched],
            "value": {"string_match": {"exact": "denied"}},
        },
    }
    timeout = seconds(provider.timeout_ms)
    if provider.body:
        made["with_request_body"] = {
            "max_request_bytes": provider.body,
            "allow_partial_message": provider.body_in_part,
            "pack_as_bytes": provider.body_packed,
        }
    if provider.kind == "grpc":
        return {**made, "grpc_service": {"envoy_grpc": {"cluster_name": name}, "timeout": timeout}}
    uri = f"http://{provider.hostname}:{provider.port}"
    service: Message = {"server_uri": {"uri": uri, "cluster": name, "timeout": timeout}}
    if provider.path_prefix:
        service["path_prefix"] = provider.path_prefix
    if provider.added:
        added = [{"key": key, "value": value} for key, value in provider.added]
        service["authorization_request"] = {"headers_to_add": added}
    answer = {
        field: {"patterns": [_pattern(one) for one in names]}
        for field, names in (
            ("allowed_upstream_headers", provider.upstream),
            ("allowed_client_headers", provider.told_denied),
            ("allowed_client_headers_on_success", provider.told_allowed),
        )
        if names
    }
    if answer:
        service["authorization_response"] = answer
    if provider.asked_with:
        made["allowed_headers"] = {"patterns": [_pattern(one) for one in provider.asked_with]}
    return {**made, "http_service": service}


def _pattern(name: str) -> Message:
    if name == "*":
        return {"safe_regex": {"regex": ".*"}}
    how = {"suffix": name[1:]} if name.startswith("*") else {"prefix": name[:-1]} if name.endswith("*") else None
    return {**(how or {"exact": name}), "ignore_case": True}


def pools(services: Iterable[Front], asking: Iterable[Front]) -> Iterator[tuple[Front, FrontPort, str]]:
    """Who is asked, as service, port and kind of pool, each once."""
    known = {(one.hostname, port.number): (one, port) for one in services for port in one.ports}
    wanted = {(one.hostname, one.port, one.kind) for front in asking for one in front.providers}
    for hostname, number, kind in sorted(wanted):
        if (hostname, number) in known:
            front, port = known[hostname, number]
            protocol = Protocol.HTTP2 if kind == "grpc" else Protocol.HTTP
            yield front, replace(port, protocol=protocol), f"ask-{kind}"
