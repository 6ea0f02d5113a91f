"""What is said of stored objects that are invalid, whatever they are, and of policies that are not."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Final

from ambient.control.derive_target import has_targets
from ambient.kube.api.events import Regarding
from ambient.kube.objects import Condition, Records, RefusedObject, RequestAuthentication, resources

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


class RefusalEvents:
    """Says of each refused version of an object, once, why it is refused: where people look when something does not
    work, also at objects whose status is not for us to write."""

    def __init__(self, say: Callable[[Regarding, str, str, str], None], leading: Callable[[], bool]) -> None:
        """`say(object, reason, note, action)`; `leading()`: whether this replica writes."""
        self._say = say
        self._leading = leading
        self._said: dict[str, str] = {}

    def hear(self, records: Records) -> None:
        """Every snapshot."""
        if not self._leading():
            return
        said = self._said
        self._said = {}
        for one in records.refused:
            note = self._said[one.key] = refusal(one).message
            if said.get(one.key) != note:
                metadata = one.raw.get("metadata")
                uid = str(metadata.get("uid", "")) if isinstance(metadata, Mapping) else ""
                version = resources(one.kind)[0].group_version
                self._say(Regarding(version, one.kind, one.name, one.namespace, uid), "Refused", note, "Read")


def refusal(refused: RefusedObject) -> Condition:
    stands = "its last good version stays in force" if refused.stands else "it has no effect until then"
    if refused.kind == RequestAuthentication.kind and not refused.stands and has_targets(refused):
        stands = "what it names is closed until then"
    where = f"{refused.error.where}: " if refused.error.where else ""
    return Condition(ACCEPTED, "False", "Invalid", f"{where}{refused.error.why}; {stands}")
