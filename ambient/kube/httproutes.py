"""Gateway API: HTTPRoute, read whole: a field that is not understood is refused, for it might be one that restricts."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping
from typing import Any, Final, TypeVar

from ambient.kube import syntax
from ambient.kube.durations import gateway_duration
from ambient.kube.gateways import VERSIONS
from ambient.kube.metadata import Shape, condition, read_common
from ambient.kube.read import Field, Object
from ambient.kube.records import Condition
from ambient.kube.routing import (
    CONTROLLER,
    BackendRef,
    HeaderEdit,
    HTTPRoute,
    Mirror,
    ParentRef,
    PathEdit,
    PathMatch,
    Redirect,
    Rewrite,
    RouteMatch,
    RouteRule,
    TextMatch,
)

T = TypeVar("T")

SHAPE: Final = Shape(VERSIONS, True, syntax.dns_subdomain, ("spec",), strict=True)

_GROUP: Final = "gateway.networking.k8s.io"
_METHODS: Final = syntax.words("GET HEAD POST PUT DELETE CONNECT OPTIONS TRACE PATCH")
_PATHS: Final = syntax.words("Exact PathPrefix RegularExpression")
_FILTERS: Final[Mapping[str, str]] = {
    "RequestHeaderModifier": "requestHeaderModifier",
    "ResponseHeaderModifier": "responseHeaderModifier",
    "RequestRedirect": "requestRedirect",
    "URLRewrite": "urlRewrite",
    "RequestMirror": "requestMirror",
}
_STATUSES: Final = (301, 302, 303, 307, 308)
_HOP_BY_HOP: Final = ("host", "connection", "transfer-encoding", "content-length", "upgrade", "te", "trailer")
_MOST: Final = 16
_LONGEST_REGEX: Final = 1024
_MOST_MATCHES: Final = 128
_MOST_NAME: Final = 256
_MOST_VALUE: Final = 4096
_MOST_REPEATED: Final = 2500
"""Of an expression with a counted group: its length times its counts. Envoy takes no larger program, and refuses the
service's whole table, policies and all, for one that is."""
_REGEX_ESCAPES: Final = frozenset("dDwWsS" + r".^$*+?()[]{}|\/-_~#&%@!,:;='\" <>")


def parse_http_route(top: Object, raw: Mapping[str, Any]) -> HTTPRoute:
    """Raises InvalidInput; every rule has its row in the tests."""
    common = read_common(top, SHAPE, raw)
    spec = top.need("spec").object(("parentRefs", "hostnames", "rules"))
    spec.each("hostnames", lambda field: field.checked(_hostname))
    parents = _few(spec, "parentRefs", _parent, 32)
    rules = _few(spec, "rules", _rule) if spec.get("rules") is not None else (RouteRule(),)
    if sum(len(one.matches) for one in rules) > _MOST_MATCHES:
        raise spec.need("rules").refuse(f"at most {_MOST_MATCHES} matches in all rules together")
    common["conditions"] += _said(top)
    return HTTPRoute(**common, parents=parents, rules=rules)


def _said(top: Object) -> tuple[Condition, ...]:
    """What the mesh has said of the route, to its first parent: all are told the same."""
    status = top.read("status", Field.open_object, None)
    for parent in status.each("parents", Field.open_object) if status else ():
        if parent.text("controllerName") == CONTROLLER:
            return parent.each("conditions", condition)
    return ()


def _few(entry: Object, key: str, reader: Callable[[Field], T], most: int = _MOST) -> tuple[T, ...]:
    found = entry.each(key, reader)
    if len(found) > most:
        raise entry.need(key).refuse(f"at most {most} entries")
    return found


def _hostname(value: str) -> str:
    return syntax.dns_subdomain(value.removeprefix("*."))


def _parent(field: Field) -> ParentRef:
    entry = field.object(("group", "kind", "namespace", "name", "sectionName", "port"))
    kind = entry.text("kind", "Gateway")
    if kind != "Gateway" and entry.present("sectionName"):
        raise entry.need("sectionName").refuse(f"a {kind} has no sections: give its port")
    return ParentRef(
        entry.text("group", _GROUP),
        kind,
        entry.need("name").checked(syntax.dns_subdomain),
        entry.read("namespace", lambda f: f.checked(syntax.dns_label), ""),
        entry.read("port", Field.port, 0),
    )


def _rule(field: Field) -> RouteRule:
    entry = field.object(("name", "matches", "filters", "backendRefs", "timeouts"))
    entry.read("name", lambda f: f.checked(syntax.dns_subdomain), "")
    matches = _few(entry, "matches", _match, 64) or (RouteMatch(),)
    made = _filters(entry)
    backends = _few(entry, "backendRefs", _weighted)
    if made["redirect"] is not None and backends:
        raise entry.need("backendRefs").refuse("may not stand beside a RequestRedirect")
    edits = [one.path for one in (made["redirect"], made["rewrite"]) if one is not None and one.path is not None]
    for edit in edits:
        if edit.kind == "ReplacePrefixMatch" and any(one.path.kind != "PathPrefix" for one in matches):
            raise entry.need("filters").refuse("ReplacePrefixMatch needs a PathPrefix in every match")
    timeouts = entry.read("timeouts", lambda f: f.object(("request", "backendRequest")), None)
    whole = timeouts.read("request", gateway_duration, None) if timeouts else None
    single = timeouts.read("backendRequest", gateway_duration, None) if timeouts else None
    if timeouts is not None and whole and single is not None and (single > whole or not single):
        raise timeouts.need("backendRequest").refuse("longer than the request's own timeout")
    return RouteRule(matches=matches, backends=backends, timeout_ms=whole, backend_timeout_ms=single, **made)


def _match(field: Field) -> RouteMatch:
    entry = field.object(("path", "headers", "queryParams", "method"))
    return RouteMatch(
        entry.read("path", _path, PathMatch()),
        _named(entry, "headers", _header_name),
        _named(entry, "queryParams", _parameter),
        entry.read("method", lambda f: f.one_of(_METHODS), ""),
    )


def _path(field: Field) -> PathMatch:
    entry = field.object(("type", "value"))
    kind = entry.read("type", lambda f: f.one_of(_PATHS), "PathPrefix")
    check = regular_expression if kind == "RegularExpression" else plain_path
    return PathMatch(kind, entry.read("value", lambda f: f.checked(check), "/"))


def _named(entry: Object, key: str, check: Callable[[str], str]) -> tuple[TextMatch, ...]:
    def one(field: Field) -> TextMatch:
        each = field.object(("type", "name", "value"))
        how = each.read("type", lambda f: f.one_of(("Exact", "RegularExpression")), "Exact")
        value = each.need("value").checked(regular_expression if how != "Exact" else _value)
        return TextMatch(each.need("name").checked(check), value, how)

    found: dict[str, TextMatch] = {}
    for match in _few(entry, key, one):
        # Of a header that is named twice, in whatever case, the first counts.
        found.setdefault(match.name.lower() if key == "headers" else match.name, match)
    return tuple(found.values())


def _filters(entry: Object) -> dict[str, Any]:
    """What the filters of a rule say, as keyword arguments of it."""
    made: dict[str, Any] = {"redirect": None, "rewrite": None, "mirrors": ()}
    given: set[str] = set()
    listed = entry.get("filters")
    for field in listed.items() if listed is not None else ():
        one = field.object(("type", *_FILTERS.values(), "extensionRef", "cors", "externalAuth"))
        kind = one.need("type").one_of(tuple(_FILTERS))
        for other in one.present(*_FILTERS.values(), "extensionRef", "cors", "externalAuth"):
            if other != _FILTERS[kind]:
                raise one.need(other).refuse(f"may not stand in a filter of type {kind}")
        if kind in given and kind != "RequestMirror":
            raise field.refuse(f"a second {kind}")
        given.add(kind)
        value = one.need(_FILTERS[kind])
        match kind:
            case "RequestHeaderModifier":
                made["request"] = _headers(value)
            case "ResponseHeaderModifier":
                made["response"] = _headers(value)
            case "RequestRedirect":
                made["redirect"] = _redirect(value)
            case "URLRewrite":
                made["rewrite"] = _rewrite(value)
            case _:
                made["mirrors"] = (*made["mirrors"], _mirror(value))
    if {"RequestRedirect", "URLRewrite"} <= given:
        raise entry.need("filters").refuse("URLRewrite may not stand beside RequestRedirect")
    return made


def _headers(field: Field) -> HeaderEdit:
    entry = field.object(("set", "add", "remove"))
    return HeaderEdit(
        _few(entry, "set", _header), _few(entry, "add", _header), _few(entry, "remove", lambda f: f.checked(_editable))
    )


def _header(field: Field) -> tuple[str, str]:
    entry = field.object(("name", "value"))
    return entry.need("name").checked(_editable), entry.need("value").checked(_value)


def _editable(name: str) -> str:
    if name.lower() in _HOP_BY_HOP:
        return f"{name!r} may not be changed" + (": use URLRewrite.hostname" if name.lower() == "host" else "")
    return _header_name(name)


def _parameter(name: str) -> str:
    return "needs a name" if not name else "" if len(name) <= _MOST_NAME else _long_name()


def _header_name(name: str) -> str:
    return syntax.header_name(name) if len(name) <= _MOST_NAME else _long_name()


def _long_name() -> str:
    return f"a name has at most {_MOST_NAME} characters"


def _value(text: str) -> str:
    return syntax.header_value(text) if len(text) <= _MOST_VALUE else f"a value has at most {_MOST_VALUE} characters"


def _redirect(field: Field) -> Redirect:
    entry = field.object(("scheme", "hostname", "path", "port", "statusCode"))
    status = entry.integer("statusCode", 302, 300, 399)
    if status not in _STATUSES:
        raise entry.need("statusCode").refuse(f"{status} is not one of {', '.join(map(str, _STATUSES))}")
    return Redirect(
        entry.read("scheme", lambda f: f.one_of(("http", "https")), ""),
        entry.read("hostname", lambda f: f.checked(syntax.dns_subdomain), ""),
        entry.read("port", Field.port, 0),
        entry.read("path", _path_edit, None),
        status,
    )


def _rewrite(field: Field) -> Rewrite:
    entry = field.object(("hostname", "path"))
    host = entry.read("hostname", lambda f: f.checked(syntax.dns_subdomain), "")
    return Rewrite(host, entry.read("path", _path_edit, None))


def _path_edit(field: Field) -> PathEdit:
    entry = field.object(("type", "replaceFullPath", "replacePrefixMatch"))
    kind = entry.need("type").one_of(("ReplaceFullPath", "ReplacePrefixMatch"))
    name, other = ("replaceFullPath", "replacePrefixMatch")[:: 1 if kind == "ReplaceFullPath" else -1]
    if entry.present(other):
        raise entry.need(other).refuse(f"may not stand in a path of type {kind}")
    return PathEdit(kind, entry.need(name).checked(lambda text: plain_path(text or "/")) or "/")


def _mirror(field: Field) -> Mirror:
    entry = field.object(("backendRef", "percent", "fraction"))
    if len(entry.present("percent", "fraction")) > 1:
        raise entry.need("fraction").refuse("may not stand beside percent")
    share = entry.integer("percent", 100, 0, 100) * 10_000
    fraction = entry.read("fraction", lambda f: f.object(("numerator", "denominator")), None)
    if fraction is not None:
        below = fraction.integer("denominator", 100, 1, 2**31 - 1)
        share = fraction.need("numerator").integer(0, below, "a part of the denominator") * 1_000_000 // below
    return Mirror(_backend(entry.need("backendRef").object(("group", "kind", "name", "namespace", "port"))), share)


def _weighted(field: Field) -> BackendRef:
    entry = field.object(("group", "kind", "name", "namespace", "port", "weight", "filters"))
    filters = entry.get("filters")
    if filters is not None and filters.items():
        raise filters.refuse("filters of a backend are not supported: give them to the rule")
    return _backend(entry)


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


def plain_path(value: str) -> str:
    """A complaint about a path that no request can have once it is made plain, "" when it is fine."""
    if not value.startswith("/") or len(value) > 1024:
        return f"{value[:40]!r} is not a path: it begins with / and has at most 1024 characters"
    for part in ("//", "/./", "/../", "%2f", "%2F", "#", "?", "\\", "%"):
        if part in value and not (part == "%" and re.fullmatch(r"([^%]|%[0-9A-Fa-f]{2})*", value)):
            return f"a path may not hold {part!r}"
    if value.endswith(("/.", "/..")):
        return "a path may not end with a dot segment"
    return "" if value.isprintable() and " " not in value else "a path may hold no blanks or control characters"


def regular_expression(value: str) -> str:
    """A complaint about what is not surely an expression that Envoy (RE2) takes and means as we do, "" when it is."""
    if not value or len(value) > _LONGEST_REGEX:
        return f"an expression has 1..{_LONGEST_REGEX} characters"
    if re.search(r"\(\?(?!:)", value) or re.search(r"[*+?}]\+", value) or "[:" in value:
        return f"{value[:40]!r}: groups with options, possessive quantifiers and named classes are not supported"
    if any(escaped not in _REGEX_ESCAPES for escaped in re.findall(r"\\(.)", value, re.DOTALL)):
        return f"{value[:40]!r}: holds an escape that is not supported"
    most = 1
    for number in re.findall(r"\{(\d*,?\d*)\}", value):
        most *= max([int(part) for part in number.split(",") if part] or [1]) or 1
    if most > 1000:
        return f"{value[:40]!r}: repeats more than 1000 times"
    if "){" in value and len(value) * most > _MOST_REPEATED:
        return f"{value[:40]!r}: repeats a group too often for its length"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            re.compile(value)
    except (re.error, Warning, OverflowError, RecursionError) as error:
        return f"{value[:40]!r} is not a regular expression: {error}"
    return "" if value.isprintable() else "an expression may hold no control characters"
