"""Parts that routes of several kinds have: parents, backends, edits of headers, mirrors, retries, CORS, sessions."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final, TypeVar

from ambient.kube import syntax
from ambient.kube.durations import gateway_duration
from ambient.kube.metadata import Common, Shape, condition, read_common
from ambient.kube.read import Field, Object
from ambient.kube.records import Condition
from ambient.kube.route_syntax import editable, header_value, regular_expression
from ambient.kube.routing import (
    CONTROLLER,
    BackendRef,
    Cors,
    HeaderEdit,
    Mirror,
    ParentRef,
    Retry,
    Session,
    TextMatch,
)

T = TypeVar("T")

GROUP: Final = "gateway.networking.k8s.io"
MOST: Final = 16
METHODS: Final = syntax.words("GET HEAD POST PUT DELETE CONNECT OPTIONS TRACE PATCH")
_MOST_ATTEMPTS: Final = 100
_NO_FILTERS: Final = ("extensionRef", "externalAuth")


def few(entry: Object, key: str, reader: Callable[[Field], T], most: int = MOST) -> tuple[T, ...]:
    """Each entry of a list that may not have more than `most`."""
    found = entry.each(key, reader)
    if len(found) > most:
        raise entry.need(key).refuse(f"at most {most} entries")
    return found


def read_route(top: Object, raw: Mapping[str, Any], shape: Shape) -> tuple[Common, Object, tuple[ParentRef, ...]]:
    """What every route has, its spec, and its parents."""
    common = read_common(top, shape, raw)
    spec = top.need("spec").object(("parentRefs", "hostnames", "rules", "useDefaultGateways"))
    common["conditions"] += _said(top)
    return common, spec, few(spec, "parentRefs", _parent, 32)


def hostname(value: str) -> str:
    return syntax.dns_subdomain(value.removeprefix("*."))


def _said(top: Object) -> tuple[Condition, ...]:
    """What the mesh has said of the route, to its first parent: all are told the same."""
    status = top.read("status", Field.open_object, None)
    for parent in status.each("parents", Field.open_object) if status else ():
        if parent.text("controllerName") == CONTROLLER:
            return parent.each("conditions", condition)
    return ()


def _parent(field: Field) -> ParentRef:
    entry = field.object(("group", "kind", "namespace", "name", "sectionName", "port"))
    kind = entry.text("kind", "Gateway")
    if kind != "Gateway" and entry.present("sectionName"):
        raise entry.need("sectionName").refuse(f"a {kind} has no sections: give its port")
    return ParentRef(
        entry.text("group", GROUP),
        kind,
        entry.need("name").checked(syntax.dns_subdomain),
        entry.read("namespace", lambda f: f.checked(syntax.dns_label), ""),
        entry.read("port", Field.port, 0),
        entry.read("sectionName", lambda f: f.checked(syntax.dns_subdomain), ""),
    )


def header_edit(field: Field) -> HeaderEdit:
    """A RequestHeaderModifier or ResponseHeaderModifier."""
    entry = field.object(("set", "add", "remove"))
    return HeaderEdit(
        few(entry, "set", _header), few(entry, "add", _header), few(entry, "remove", lambda f: f.checked(editable))
    )


def _header(field: Field) -> tuple[str, str]:
    entry = field.object(("name", "value"))
    return entry.need("name").checked(editable), entry.need("value").checked(header_value)


def mirror(field: Field) -> Mirror:
    """A RequestMirror."""
    entry = field.object(("backendRef", "percent", "fraction"))
    if len(entry.present("percent", "fraction")) > 1:
        raise entry.need("fraction").refuse("may not stand beside percent")
    share = entry.integer("percent", 100, 0, 100) * 10_000
    fraction = entry.read("fraction", lambda f: f.object(("numerator", "denominator")), None)
    if fraction is not None:
        below = fraction.integer("denominator", 100, 1, 2**31 - 1)
        share = fraction.need("numerator").integer(0, below, "a part of the denominator") * 1_000_000 // below
    return Mirror(_backend(entry.need("backendRef").object(("group", "kind", "name", "namespace", "port"))), share)


def weighted(field: Field) -> BackendRef:
    """One of a rule's backends; filters that it may have are edits of headers."""
    entry = field.object(("group", "kind", "name", "namespace", "port", "weight", "filters"))
    edits: dict[str, HeaderEdit] = {}
    filters = entry.get("filters")
    for one in filters.items() if filters is not None else ():
        each = one.object(("type", "requestHeaderModifier", "responseHeaderModifier"))
        kind = each.need("type").one_of(("RequestHeaderModifier", "ResponseHeaderModifier"))
        side = "request" if kind.startswith("Request") else "response"
        if side in edits:
            raise one.refuse(f"a second {kind}")
        edits[side] = header_edit(each.need(f"{side}HeaderModifier"))
    nothing = HeaderEdit()
    return replace(_backend(entry), request=edits.get("request", nothing), response=edits.get("response", nothing))


def unedited(field: Field) -> BackendRef:
    """One of the backends of a route that reads nothing."""
    return _backend(field.object(("group", "kind", "name", "namespace", "port", "weight")))


def named(entry: Object, key: str, check: Callable[[str], str]) -> tuple[TextMatch, ...]:
    """The matches of headers, or of parameters, by name."""

    def one(field: Field) -> TextMatch:
        each = field.object(("type", "name", "value"))
        how = each.read("type", lambda f: f.one_of(("Exact", "RegularExpression")), "Exact")
        value = each.need("value").checked(regular_expression if how != "Exact" else header_value)
        return TextMatch(each.need("name").checked(check), value, how)

    found: dict[str, TextMatch] = {}
    for match in few(entry, key, one):
        # Of a header that is named twice, in whatever case, the first counts.
        found.setdefault(match.name.lower() if key == "headers" else match.name, match)
    return tuple(found.values())


def rule_filters(entry: Object, known: Mapping[str, str]) -> Iterator[tuple[str, Field]]:
    """Type and content of each filter of a rule; each type at most once, but for mirrors. `known`: type -> field."""
    given: set[str] = set()
    listed = entry.get("filters")
    for field in listed.items() if listed is not None else ():
        one = field.object(("type", *known.values(), *_NO_FILTERS))
        kind = one.need("type").one_of(tuple(known))
        for other in one.present(*known.values(), *_NO_FILTERS):
            if other != known[kind]:
                raise one.need(other).refuse(f"may not stand in a filter of type {kind}")
        if kind in given and kind != "RequestMirror":
            raise field.refuse(f"a second {kind}")
        given.add(kind)
        yield kind, one.need(known[kind])


def _backend(entry: Object) -> BackendRef:
    group, kind = entry.text("group"), entry.text("kind", "Service")
    core = (group, kind) == ("", "Service")
    return BackendRef(
        entry.need("name").checked(syntax.dns_subdomain),
        entry.need("port").port() if core else entry.read("port", Field.port, 0),
        entry.integer("weight", 1, 0, 1_000_000),
        entry.read("namespace", lambda f: f.checked(syntax.dns_label), ""),
        group,
        kind,
    )


def retry(field: Field) -> Retry:
    """GEP-1731."""
    entry = field.object(("codes", "attempts", "backoff"))
    codes = few(entry, "codes", lambda f: f.integer(400, 599, "a status of an error"), 200)
    return Retry(
        entry.integer("attempts", 1, 0, _MOST_ATTEMPTS),
        tuple(dict.fromkeys(codes)),
        backoff_ms=entry.read("backoff", gateway_duration, None),
    )


def session(field: Field) -> Session:
    """GEP-1619: a session whose end the client is told, or that has none."""
    entry = field.object(("sessionName", "absoluteTimeout", "idleTimeout", "type", "cookieConfig"))
    name = entry.read("sessionName", lambda f: f.checked(syntax.header_name), "ambient-session")
    kind = entry.read("type", lambda f: f.one_of(("Cookie", "Header")), "Cookie")
    if entry.present("idleTimeout"):
        raise entry.need("idleTimeout").refuse("not supported: nobody remembers when a session was last used")
    cookie = entry.read("cookieConfig", lambda f: f.object(("lifetimeType",)), None)
    if cookie is not None and kind != "Cookie":
        raise entry.need("cookieConfig").refuse("may not stand beside type Header")
    lifetime = cookie.read("lifetimeType", lambda f: f.one_of(("Permanent", "Session")), "Session") if cookie else ""
    lasts = entry.read("absoluteTimeout", gateway_duration, 0)
    if lifetime == "Permanent" and not lasts:
        raise field.refuse("a Permanent cookie needs an absoluteTimeout")
    if lasts and lifetime != "Permanent":
        raise entry.need("absoluteTimeout").refuse("only a cookie of lifetimeType Permanent has an end")
    return Session(name, kind == "Header", lasts)


def cors(field: Field) -> Cors:
    """An HTTPCORSFilter. What asks for more than it allows is answered without it, and goes nowhere."""
    entry = field.object(
        ("allowOrigins", "allowMethods", "allowHeaders", "exposeHeaders", "maxAge", "allowCredentials")
    )
    names = {key: few(entry, key, _star_or_header, 64) for key in ("allowHeaders", "exposeHeaders")}
    return Cors(
        few(entry, "allowOrigins", _origin, 64),
        few(entry, "allowMethods", lambda f: f.one_of((*METHODS, "*")), 9),
        names["allowHeaders"],
        names["exposeHeaders"],
        entry.integer("maxAge", 5, 1, 2**31 - 1),
        entry.flag("allowCredentials"),
        forward=False,
    )


def _star_or_header(field: Field) -> str:
    return field.checked(lambda text: "" if text == "*" else syntax.header_name(text))


def _origin(field: Field) -> TextMatch:
    text = field.text()
    if text == "*":
        return TextMatch("", ".*", "RegularExpression")
    scheme, separator, host = text.partition("://")
    name, colon, port = host.partition(":")
    numbered = (port.isdigit() and len(port) <= 5) or not colon
    good = separator and scheme in ("http", "https") and not hostname(name) and numbered
    if not good:
        raise field.refuse(f"{text[:60]!r} is not an origin such as https://*.example.com")
    if name.startswith("*."):
        pattern = rf"{scheme}://([^./:]+\.)+{name[2:].replace('.', chr(92) + '.')}{colon}{port}"
        return TextMatch("", pattern, "RegularExpression")
    return TextMatch("", text)
