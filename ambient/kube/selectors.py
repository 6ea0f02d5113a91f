"""Label selectors written as text, as kubectl takes them: `env=prod,team in (a, b),!canary`; several with `;`. Pure."""

from __future__ import annotations

import re
from typing import Final

from ambient.kube import syntax
from ambient.kube.networking import LabelRequirement, LabelSelector

_SET: Final = re.compile(r"(\S+)\s+(in|notin)\s*\(([^()]*)\)")
_EQUAL: Final = re.compile(r"([^\s=!]+)\s*(==|=|!=)\s*([^\s=!]*)")
_SPLIT: Final = re.compile(r",(?![^(]*\))")


def parse_selectors(text: str) -> tuple[LabelSelector, ...]:
    """One of the selectors must fit; of one everything. "" gives none. Raises ValueError."""
    if not text.strip():
        return ()
    return tuple(LabelSelector(requirements=_requirements(part)) for part in text.split(";"))


def _requirements(text: str) -> tuple[LabelRequirement, ...]:
    parts = [part.strip() for part in _SPLIT.split(text)]
    if not all(parts):
        raise ValueError(f"{text!r} has an empty part")
    return tuple(_requirement(part) for part in parts)


def _requirement(part: str) -> LabelRequirement:
    if chosen := _SET.fullmatch(part):
        key, operator, listed = chosen.groups()
        values = tuple(value.strip() for value in listed.split(","))
        found = LabelRequirement(key, "In" if operator == "in" else "NotIn", values)
    elif equal := _EQUAL.fullmatch(part):
        key, sign, value = equal.groups()
        found = LabelRequirement(key, "NotIn" if sign == "!=" else "In", (value,))
    elif part.startswith("!"):
        found = LabelRequirement(part[1:].strip(), "DoesNotExist")
    else:
        found = LabelRequirement(part, "Exists")
    complaint = syntax.qualified_name(found.key) or next(
        (why for value in found.values if (why := syntax.label(found.key, value))), ""
    )
    if complaint:
        raise ValueError(complaint)
    return found
