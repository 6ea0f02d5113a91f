"""Texts in routes that Envoy has to take and to mean as we do. Each check returns a complaint, or "" when fine."""

from __future__ import annotations

import re
import warnings
from typing import Final

from ambient.kube import syntax
from ambient.kube.expression_size import size_of

_HOP_BY_HOP: Final = ("host", "connection", "transfer-encoding", "content-length", "upgrade", "te", "trailer")
_THE_PROXYS: Final = "x-forwarded-client-cert"
"""Says who the client is, by its certificate: what a route wrote there would be taken for that."""
_LONGEST_REGEX: Final = 1024
_MOST_NAME: Final = 256
_MOST_VALUE: Final = 4096
_MOST_REPEATED: Final = 2500
"""Of an expression with a counted group: its length in bytes, counts written out. Envoy takes no larger program, and
refuses the service's whole table, policies and all, for one that is."""
_MOST_CLASS: Final = 10_000
"""The same of one with a counted class, of which a byte makes less of the program."""
_MOST_COUNTED: Final = 15_000
"""The same of one where only signs and escapes are counted."""
_REGEX_ESCAPES: Final = frozenset("dDwWsS" + r".^$*+?()[]{}|\/-_~#&%@!,:;='\" <>")


def editable(name: str) -> str:
    """Of a header that a route may change."""
    if name.lower() in _HOP_BY_HOP:
        return f"{name!r} may not be changed" + (": use URLRewrite.hostname" if name.lower() == "host" else "")
    if name.lower() == _THE_PROXYS:
        return f"{name!r} may not be changed: only the proxy says who a client is"
    return header_name(name)


def parameter(name: str) -> str:
    """Of a query parameter's name."""
    return "needs a name" if not name else "" if len(name) <= _MOST_NAME else _long_name()


def header_name(name: str) -> str:
    return syntax.header_name(name) if len(name) <= _MOST_NAME else _long_name()


def _long_name() -> str:
    return f"a name has at most {_MOST_NAME} characters"


def header_value(text: str) -> str:
    return syntax.header_value(text) if len(text) <= _MOST_VALUE else f"a value has at most {_MOST_VALUE} characters"


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
    try:
        size = size_of(value)
    except RecursionError:
        return f"{value[:40]!r}: its groups are within each other too often"
    if size.repeated > 1000:
        return f"{value[:40]!r}: repeats more than 1000 times"
    limits = ((size.groups, "a group", _MOST_REPEATED), (size.classes, "a class", _MOST_CLASS))
    for counted, what, limit in (*limits, (size.repeated > 1, "something", _MOST_COUNTED)):
        if counted and size.octets > limit:
            return f"{value[:40]!r}: repeats {what} too often for its length"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            re.compile(value)
    except (re.error, Warning, OverflowError, RecursionError) as error:
        return f"{value[:40]!r} is not a regular expression: {error}"
    return "" if value.isprintable() else "an expression may hold no control characters"
