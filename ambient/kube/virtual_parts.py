"""Parts of a VirtualService's rules: edits of headers, redirects, rewrites, CORS, faults."""

from __future__ import annotations

import re
from typing import Final

from ambient.kube import syntax
from ambient.kube.durations import istio_duration, positive_duration
from ambient.kube.read import Field, Object
from ambient.kube.route_parts import METHODS, few
from ambient.kube.route_syntax import editable, header_value, regular_expression
from ambient.kube.routing import Cors, Fault, HeaderEdit, PathEdit, Redirect, Rewrite, TextMatch
from ambient.kube.traffic_policy import percentage

_CORS: Final = syntax.words(
    "allowOrigin allowOrigins allowMethods allowHeaders exposeHeaders maxAge allowCredentials unmatchedPreflights"
)
_STATUSES: Final = (301, 302, 303, 307, 308)
_GRPC: Final = syntax.words(
    "OK CANCELLED UNKNOWN INVALID_ARGUMENT DEADLINE_EXCEEDED NOT_FOUND ALREADY_EXISTS PERMISSION_DENIED"
    " RESOURCE_EXHAUSTED FAILED_PRECONDITION ABORTED OUT_OF_RANGE UNIMPLEMENTED INTERNAL UNAVAILABLE DATA_LOSS"
    " UNAUTHENTICATED"
)
_AUTHORITY: Final = re.compile(r"[A-Za-z0-9._:\[\]-]{1,255}")


def header_edit(field: Field) -> HeaderEdit:
    """headers.request or headers.response."""
    entry = field.object(("set", "add", "remove"))
    edits = {key: tuple(entry.text_map(key, _edit).items()) for key in ("set", "add")}
    return HeaderEdit(edits["set"], edits["add"], few(entry, "remove", lambda f: f.checked(editable), 64))


def _edit(name: str, value: str) -> str:
    return editable(name) or header_value(value)


def redirect(field: Field) -> Redirect:
    """HTTPRedirect; 301 where no code is given."""
    entry = field.object(("uri", "authority", "port", "derivePort", "scheme", "redirectCode"))
    if len(entry.present("port", "derivePort")) > 1:
        raise entry.need("derivePort").refuse("may not stand beside port")
    status = entry.integer("redirectCode", 301, 300, 399)
    if status not in _STATUSES:
        raise entry.need("redirectCode").refuse(f"{status} is not one of {', '.join(map(str, _STATUSES))}")
    entry.read("derivePort", lambda f: f.one_of(("FROM_PROTOCOL_DEFAULT", "FROM_REQUEST_PORT")), "")
    return Redirect(
        entry.read("scheme", lambda f: f.one_of(("http", "https")), ""),
        entry.read("authority", lambda f: f.checked(_authority), ""),
        entry.read("port", Field.port, 0),
        entry.read("uri", lambda f: PathEdit("ReplaceFullPath", f.checked(_path)), None),
        status,
    )


def _authority(value: str) -> str:
    return "" if _AUTHORITY.fullmatch(value) else f"{value[:60]!r} is not an authority"


def _path(value: str) -> str:
    if not value.startswith("/") or len(value) > 1024:
        return f"{value[:40]!r} is not a path: it begins with / and has at most 1024 characters"
    good = value.isprintable() and set(value).isdisjoint(" \\#")
    return "" if good else "a path may hold no blanks, backslashes or control characters"


def rewrite(field: Field) -> Rewrite:
    """HTTPRewrite."""
    entry = field.object(("uri", "authority", "uriRegexRewrite"))
    if len(entry.present("uri", "uriRegexRewrite")) > 1:
        raise entry.need("uriRegexRewrite").refuse("may not stand beside uri")
    if not entry.present("uri", "authority", "uriRegexRewrite"):
        raise field.refuse("needs one of uri, authority and uriRegexRewrite")
    host = entry.read("authority", lambda f: f.checked(_authority), "")
    path = entry.read("uri", lambda f: PathEdit("ReplacePrefixMatch", f.checked(_path)), None)
    return Rewrite(host, entry.read("uriRegexRewrite", _by_pattern, path))


def _by_pattern(field: Field) -> PathEdit:
    entry = field.object(("match", "rewrite"))
    pattern = entry.need("match").checked(regular_expression)
    value = entry.need("rewrite").checked(lambda text: "" if text.isprintable() else "holds control characters")
    groups = re.compile(pattern).groups
    # RE2 knows \0..\9 and \\ in a substitution, and takes nothing else after a backslash.
    for escaped in re.findall(r"\\(.?)", value):
        if escaped != "\\" and not (escaped.isascii() and escaped.isdigit() and int(escaped) <= groups):
            raise entry.need("rewrite").refuse(f"\\{escaped} stands for nothing that match has")
    return PathEdit("RegularExpression", value, pattern)


def cors_policy(field: Field) -> Cors:
    """CorsPolicy."""
    entry = field.object(_CORS)
    if len(entry.present("allowOrigin", "allowOrigins")) > 1:
        raise entry.need("allowOrigin").refuse("may not stand beside allowOrigins")
    unmatched = entry.read("unmatchedPreflights", lambda f: f.one_of(("UNSPECIFIED", "FORWARD", "IGNORE")), "")
    age = entry.read("maxAge", istio_duration, None)
    return Cors(
        few(entry, "allowOrigins", _origin, 64) or few(entry, "allowOrigin", _old_origin, 64),
        few(entry, "allowMethods", lambda f: f.one_of((*METHODS, "*")), 9),
        few(entry, "allowHeaders", _header, 64),
        few(entry, "exposeHeaders", _header, 64),
        None if age is None else age // 1000,
        entry.flag("allowCredentials"),
        unmatched != "IGNORE",
    )


def _header(field: Field) -> str:
    return field.checked(lambda text: "" if text == "*" else syntax.header_name(text))


def _old_origin(field: Field) -> TextMatch:
    text = field.checked(header_value)
    return TextMatch("", ".*", "RegularExpression") if text == "*" else TextMatch("", text)


def _origin(field: Field) -> TextMatch:
    entry = field.object(("exact", "prefix", "regex"))
    given = entry.present("exact", "prefix", "regex")
    if len(given) != 1:
        raise field.refuse("needs exactly one of exact, prefix and regex")
    if given == ["regex"]:
        return TextMatch("", entry.need("regex").checked(regular_expression), "RegularExpression")
    if given == ["exact"]:
        return _old_origin(entry.need("exact"))
    prefix = entry.need("prefix").checked(header_value)
    return TextMatch("", prefix, "Prefix") if prefix else TextMatch("", ".*", "RegularExpression")


def fault(field: Field) -> Fault:
    """HTTPFaultInjection."""
    entry = field.object(("delay", "abort"))
    delay = entry.read("delay", lambda f: f.object(("percentage", "percent", "fixedDelay", "exponentialDelay")), None)
    abort = entry.read(
        "abort", lambda f: f.object(("percentage", "percent", "httpStatus", "grpcStatus", "http2Error")), None
    )
    if delay is None and abort is None:
        raise field.refuse("needs one of delay and abort")
    delay_ms, status, grpc = 0, None, None
    if delay is not None:
        if delay.present("exponentialDelay"):
            raise delay.need("exponentialDelay").refuse("not supported: give a fixedDelay")
        delay_ms = positive_duration(delay.need("fixedDelay"))
    if abort is not None:
        given = abort.present("httpStatus", "grpcStatus", "http2Error")
        if len(given) != 1 or given == ["http2Error"]:
            raise abort.at.refuse("needs exactly one of httpStatus and grpcStatus")
        status = abort.read("httpStatus", lambda f: f.integer(200, 599, "a status"), None)
        grpc = abort.read("grpcStatus", lambda f: _GRPC.index(f.one_of(_GRPC)), None)
    return Fault(delay_ms, _share(delay), status, grpc, _share(abort))


def _share(entry: Object | None) -> int:
    if entry is None:
        return 0
    if entry.present("percent"):
        return entry.integer("percent", 0, 0, 100) * 10_000
    share = entry.read("percentage", lambda f: f.object(("value",)), None)
    return 1_000_000 if share is None else round(share.read("value", percentage, 0.0) * 10_000)
