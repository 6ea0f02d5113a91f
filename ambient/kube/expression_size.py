"""How large a regular expression gets when its counts are written out, as Envoy's RE2 does with them. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_COUNT: Final = re.compile(r"\{(\d*,?\d*)\}")
_OPTIONAL: Final = re.compile(r"[*+?]*")


@dataclass(frozen=True, slots=True)
class Size:
    """`octets` of the text with every counted part as often as its count says; `repeated`: the largest product of
    counts within each other; `groups`, `classes`: whether there are counted ones."""

    octets: int = 0
    repeated: int = 1
    groups: bool = False
    classes: bool = False


def size_of(text: str) -> Size:
    """Of any text; where it is no expression, of something like it."""
    return _sequence(text, 0, 0)[0]


def _sequence(text: str, at: int, depth: int) -> tuple[Size, int]:
    """From here to the end of the group; and where that is."""
    octets, repeated, groups, classes = 0, 1, False, False
    while at < len(text) and not (text[at] == ")" and depth):
        begun, inner = at, Size()
        if text[at] == "(":
            inner, at = _sequence(text, at + 1, depth + 1)
            at = min(at + 1, len(text))
            own = inner.octets + 2
        else:
            at = _atom(text, at)
            own = len(text[begun:at].encode(errors="replace"))
        end = _OPTIONAL.match(text, at).end()  # type: ignore[union-attr]  # it fits nothing, too
        times, counted = 1, _COUNT.match(text, end)
        if counted is not None:
            times = max([int(part) for part in counted[1].split(",") if part] or [1]) or 1
            groups |= text[begun] == "("
            classes |= text[begun] == "["
            end = counted.end()
        octets += (own + end - at) * times
        repeated = max(repeated, inner.repeated * times)
        groups, classes, at = groups or inner.groups, classes or inner.classes, end
    return Size(octets, repeated, groups, classes), at


def _atom(text: str, at: int) -> int:
    """Where what begins here ends: an escape, a class, or a sign."""
    if text[at] == "\\":
        return min(at + 2, len(text))
    if text[at] != "[":
        return at + 1
    at += 2 if text.startswith("[^", at) else 1
    at += text.startswith("]", at)
    while at < len(text) and text[at] != "]":
        at += 2 if text[at] == "\\" else 1
    return min(at + 1, len(text))
