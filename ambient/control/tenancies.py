"""Which accounts run where, from snapshot to snapshot: what entitles a node to certificates. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from ambient.ca.entitle import Tenancy
from ambient.kube.joined import is_joined, joined_node
from ambient.kube.networking import WorkloadEntry
from ambient.kube.objects import Pod, Record, Records


def tenancy_of(record: Record | None) -> Tenancy | None:
    """What a pod that is placed and neither finished nor failed entitles its node to; and a machine that has joined
    may have certificates of its own account, of no other."""
    if isinstance(record, Pod) and record.node_name and record.phase not in ("Succeeded", "Failed"):
        return Tenancy(record.node_name, record.namespace, record.service_account)
    if isinstance(record, WorkloadEntry) and is_joined(record.annotations):
        node = joined_node(record.namespace, record.name)
        return Tenancy(node, record.namespace, record.endpoint.service_account or "default")
    return None


class Tenancies:
    """Counts how many objects stand for each, so that a change costs what it concerns."""

    def __init__(self) -> None:
        self._of: dict[str, Tenancy] = {}
        self._counts: dict[Tenancy, int] = {}
        self._now: frozenset[Tenancy] = frozenset()

    def update(self, records: Records) -> frozenset[Tenancy]:
        """All tenancies of this snapshot, which must come after the one before it; the same set while none differs."""
        keys: Iterable[str] = self._of.keys() | records.by_key.keys() if records.changed is None else records.changed
        differs = False
        for key in keys:
            before, after = self._of.get(key), tenancy_of(records.by_key.get(key))
            if before == after:
                continue
            if before is not None:
                del self._of[key]
                self._counts[before] -= 1
                if not self._counts[before]:
                    del self._counts[before]
                    differs = True
            if after is not None:
                self._of[key] = after
                differs |= after not in self._counts
                self._counts[after] = self._counts.get(after, 0) + 1
        if differs:
            self._now = frozenset(self._counts)
        return self._now
