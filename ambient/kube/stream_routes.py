"""Gateway API: TCPRoute and TLSRoute, about connections that are carried unread, and ReferenceGrant."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ambient.kube import syntax
from ambient.kube.metadata import Shape, read_common
from ambient.kube.read import Field, Object
from ambient.kube.route_parts import GROUP, few, hostname, read_route, unedited
from ambient.kube.routing import BackendRef, Grant, ReferenceGrant, StreamRule, TCPRoute, TLSRoute

TCP_SHAPE: Final = Shape((f"{GROUP}/v1alpha2", f"{GROUP}/v1"), True, syntax.dns_subdomain, ("spec",), strict=True)
TLS_SHAPE: Final = Shape(
    (f"{GROUP}/v1", f"{GROUP}/v1alpha3", f"{GROUP}/v1alpha2"), True, syntax.dns_subdomain, ("spec",), strict=True
)
GRANT_SHAPE: Final = Shape((f"{GROUP}/v1beta1", f"{GROUP}/v1"), True, syntax.dns_subdomain, ("spec",), strict=True)


def parse_tcp_route(top: Object, raw: Mapping[str, Any]) -> TCPRoute:
    """Raises InvalidInput; every rule has its row in the tests."""
    common, spec, parents = read_route(top, raw, TCP_SHAPE)
    if spec.present("hostnames"):
        raise spec.need("hostnames").refuse("nobody says in TCP what he asks for: a TLSRoute has names")
    return TCPRoute(**common, parents=parents, streams=(StreamRule(_backends(spec)),))


def parse_tls_route(top: Object, raw: Mapping[str, Any]) -> TLSRoute:
    """Raises InvalidInput; every rule has its row in the tests."""
    common, spec, parents = read_route(top, raw, TLS_SHAPE)
    names = few(spec, "hostnames", lambda field: field.checked(hostname))
    return TLSRoute(**common, parents=parents, streams=(StreamRule(_backends(spec), tuple(dict.fromkeys(names))),))


def _backends(spec: Object) -> tuple[BackendRef, ...]:
    rules = few(spec, "rules", _rule)
    if len(rules) != 1:
        raise (spec.get("rules") or spec.at).refuse("needs exactly one rule: nothing chooses between several")
    return rules[0]


def _rule(field: Field) -> tuple[BackendRef, ...]:
    entry = field.object(("name", "backendRefs"))
    entry.read("name", lambda f: f.checked(syntax.dns_subdomain), "")
    found = few(entry, "backendRefs", unedited)
    if not found:
        raise field.refuse("needs at least one of backendRefs")
    return found


def parse_reference_grant(top: Object, raw: Mapping[str, Any]) -> ReferenceGrant:
    """Raises InvalidInput; every rule has its row in the tests."""
    common = read_common(top, GRANT_SHAPE, raw)
    spec = top.need("spec").object(("from", "to"))
    sources = tuple(_from(field) for field in spec.need("from").items())
    targets = tuple(_to(field) for field in spec.need("to").items())
    grants = tuple(Grant(*source, *target) for source in sources for target in targets)
    return ReferenceGrant(**common, grants=grants)


def _from(field: Field) -> tuple[str, str, str]:
    entry = field.object(("group", "kind", "namespace"))
    kind = entry.need("kind").text()
    return entry.need("group").text(), kind, entry.need("namespace").checked(syntax.dns_label)


def _to(field: Field) -> tuple[str, str, str]:
    entry = field.object(("group", "kind", "name"))
    return entry.need("group").text(), entry.need("kind").text(), entry.text("name")
