"""What is said of stored objects that are invalid, whatever they are, and of policies that are not. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final

from ambient.kube.objects import Condition, RefusedObject

ACCEPTED: Final = "ambient.mesh/Accepted"
_SILENT: Final = frozenset({"Pod", "Node", "Namespace", "ServiceAccount", "EndpointSlice"})
"""Others write these and their status; nobody looks for a word of ours there."""


def with_refusals(
    refused: Iterable[RefusedObject], conditions: Mapping[str, tuple[Condition, ...]], policies: Iterable[str]
) -> Mapping[str, tuple[Condition, ...]]:
    """`conditions` and, of every object that is refused and has none, why; of every other policy (key) nothing yet."""
    more: dict[str, tuple[Condition, ...]] = {key: () for key in policies if key not in conditions}
    for one in refused:
        if one.kind not in _SILENT and one.key not in conditions:
            more[one.key] = (refusal(one),)
    return MappingProxyType({**conditions, **more}) if more else conditions


def refusal(refused: RefusedObject) -> Condition:
    stands = "its last good version stays in force" if refused.stands else "it has no effect until then"
    where = f"{refused.error.where}: " if refused.error.where else ""
    return Condition(ACCEPTED, "False", "Invalid", f"{where}{refused.error.why}; {stands}")
