"""Whether endpoints came, went or moved and nothing else: what happens all the time, and has to cost little. Pure."""

from __future__ import annotations

from collections.abc import Container, Iterator, Mapping
from typing import Final

from ambient.control.derive import Derived
from ambient.kube.objects import Records
from ambient.model.workload import Workload

_KINDS: Final = ("Pod/", "EndpointSlice/", "WorkloadEntry/")


def moved(records: Records, before: Records, derived: Derived, known: Container[str]) -> bool:
    """`known`: the workloads that there were. False where in doubt."""
    news = derived.changes
    if news is None or records.changed is None or records.refused != before.refused:
        return False
    if not all(key.startswith(_KINDS) for key in records.changed):
        return False
    return all(isinstance(one, Workload) for one in news.put) and all(uid in known for uid in news.gone_addresses)


def relabelled(records: Records, before: Records, services_of: Mapping[str, tuple[str, ...]]) -> Iterator[str]:
    """Keys of the services of endpoints that have other labels than before. `services_of`: by uid of the workload."""
    for key in records.changed or ():
        old, new = before.by_key.get(key), records.by_key.get(key)
        if old is not None and new is not None and old.labels != new.labels:
            for uid, services in services_of.items():
                if uid.endswith(f"/{key}"):
                    yield from services
