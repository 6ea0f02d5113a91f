"""Matches of a VirtualService. Those for gateways alone are left out; what cannot be known at a waypoint is refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from ambient.kube import syntax
from ambient.kube.read import Field, Object
from ambient.kube.route_parts import few
from ambient.kube.route_syntax import header_name, header_value, parameter, regular_expression
from ambient.kube.routing import PathMatch, RouteMatch, TextMatch

_MATCH: Final = syntax.words(
    "name uri scheme method authority headers withoutHeaders port queryParams ignoreUriCase sourceLabels"
    " sourceNamespace gateways statPrefix"
)
_STREAM: Final = syntax.words("sniHosts destinationSubnets port sourceLabels sourceNamespace sourceSubnet gateways")
_UNKNOWN: Final = {
    "sourceLabels": "not known at a waypoint: use sourceNamespace, or match x-forwarded-client-cert",
    "destinationSubnets": "not supported: a waypoint is asked for services",
    "sourceSubnet": "not supported: who may connect is said by an AuthorizationPolicy",
}
_XFCC: Final = "x-forwarded-client-cert"
_PSEUDO: Final = {"scheme": ":scheme", "authority": ":authority"}


def request_matches(entry: Object) -> tuple[tuple[RouteMatch, int], ...]:
    """Of a rule for requests: each match with its port, 0: any."""
    if not entry.present("match") or not entry.need("match").items():
        return ((RouteMatch(PathMatch("Prefix", "/")), 0),)
    return tuple(one for one in few(entry, "match", _request, 64) if one is not None)


def stream_matches(entry: Object, *, tls: bool) -> tuple[tuple[tuple[str, ...], int], ...]:
    """Of a rule for connections: the names that TLS asks for, and the port."""
    if not entry.present("match") or not entry.need("match").items():
        if tls:
            raise entry.at.refuse("a rule for tls needs a match with sniHosts")
        return (((), 0),)
    return tuple(one for one in few(entry, "match", lambda f: _connection(f, tls=tls), 64) if one is not None)


def _inside(match: Object) -> bool:
    """Whether it is for calls inside of the mesh."""
    for key in match.present(*_UNKNOWN):
        raise match.need(key).refuse(_UNKNOWN[key])
    gateways = match.texts("gateways")
    return not gateways or "mesh" in gateways


def _connection(field: Field, *, tls: bool) -> tuple[tuple[str, ...], int] | None:
    match = field.object(_STREAM)
    port = match.read("port", Field.port, 0)
    if match.present("sourceNamespace"):
        raise match.need("sourceNamespace").refuse("not supported for connections: use an AuthorizationPolicy")
    if match.present("sniHosts") and not tls:
        raise match.need("sniHosts").refuse("is for rules of tls")
    names = few(match, "sniHosts", lambda f: f.checked(_sni), 64)
    if tls and not names:
        raise field.refuse("needs sniHosts")
    return (tuple(dict.fromkeys(names)), port) if _inside(match) else None


def _sni(value: str) -> str:
    return syntax.dns_subdomain(value.removeprefix("*.").lower())


def _request(field: Field) -> tuple[RouteMatch, int] | None:
    match = field.object(_MATCH)
    any_case = match.flag("ignoreUriCase")
    headers = [*_texts(match, "headers", header_name), *_without(match)]
    for key, name in _PSEUDO.items():
        if match.present(key):
            headers.append(_text(match.need(key), name))
    method = match.read("method", lambda f: _text(f, ":method"), None)
    exact = method is not None and method.how == "Exact"
    if method is not None and not exact:
        headers.append(method)
    made = RouteMatch(
        match.read("uri", lambda f: _uri(f, any_case), PathMatch("Prefix", "/")),
        tuple(headers),
        _texts(match, "queryParams", parameter),
        method.value if method is not None and exact else "",
        match.read("sourceNamespace", lambda f: f.checked(syntax.dns_label), ""),
    )
    return (made, match.read("port", Field.port, 0)) if _inside(match) else None


def _uri(field: Field, any_case: bool) -> PathMatch:
    found = _text(field, "")
    if found.how == "Present":
        raise field.refuse("needs one of exact, prefix and regex")
    kind = found.how
    if kind != "RegularExpression" and not found.value.startswith("/"):
        raise field.refuse(f"{found.value[:40]!r} is not a path: it begins with /")
    if kind != "RegularExpression" and not (found.value.isprintable() and set(found.value).isdisjoint(" ?#")):
        raise field.refuse("a path may hold no blanks, queries or control characters")
    return PathMatch(kind, found.value, any_case)


def _texts(match: Object, key: str, check: Callable[[str], str]) -> tuple[TextMatch, ...]:
    field = match.get(key)
    found = []
    for name, value in field.mapping().items() if field is not None else ():
        at = Field(value, f"{match.at.path}.{key}[{name}]", match.at.what)
        complaint = check(name)
        if complaint:
            raise at.refuse(complaint)
        found.append(_text(at, name))
    return tuple(found)


def _without(match: Object) -> list[TextMatch]:
    found = _texts(match, "withoutHeaders", header_name)
    if any(one.name.lower() == _XFCC for one in found):
        raise match.need("withoutHeaders").refuse(f"{_XFCC} can only be asked for in headers")
    return [TextMatch(one.name, one.value, one.how, absent=True) for one in found]


def _text(field: Field, name: str) -> TextMatch:
    """A StringMatch: nothing in it means that it only has to be there."""
    entry = field.object(("exact", "prefix", "regex"))
    given = entry.present("exact", "prefix", "regex")
    if len(given) > 1:
        raise field.refuse("needs at most one of exact, prefix and regex")
    if not given:
        return TextMatch(name, "", "Present")
    if given == ["regex"]:
        return TextMatch(name, entry.need("regex").checked(regular_expression), "RegularExpression")
    value = entry.need(given[0]).checked(header_value)
    if given == ["prefix"]:
        return TextMatch(name, value, "Prefix") if value else TextMatch(name, "", "Present")
    return TextMatch(name, value)
