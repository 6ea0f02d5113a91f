"""Compares what is on the node with what should be there: finds what is missing, and what nobody owns.

Pure; the server acts on the findings. A finding about a pod that is on its way in or out is never made.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from ambient.agent.apply import row_of
from ambient.agent.enrol import PodTarget
from ambient.agent.journal import Entry
from ambient.datapath.layout import PodRow
from ambient.model.address import IpAddress


@dataclass(frozen=True, slots=True)
class Findings:
    """`loose`: pods (by uid) of which a program is off; `wrong_rows`: pods of which a row is missing or changed;
    `orphans`: uids with links that nobody tracks; `stray_rows`: addresses likewise."""

    loose: tuple[str, ...] = ()
    wrong_rows: tuple[str, ...] = ()
    orphans: tuple[str, ...] = ()
    stray_rows: tuple[IpAddress, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.loose or self.wrong_rows or self.orphans or self.stray_rows)


def compare(
    entries: Iterable[Entry],
    tracked: Iterable[PodTarget],
    enrolled: Collection[str],
    attached: Mapping[str, bool],
    rows: Mapping[IpAddress, PodRow],
) -> Findings:
    """`tracked`: pods that are in or on their way; `enrolled`: uids of those that are fully in; `attached`: by uid,
    whether every program is attached."""
    known = {entry.pod.uid: entry for entry in entries}
    ours = {pod.uid: pod for pod in (*tracked, *(entry.pod for entry in known.values()))}
    addresses = {ip for pod in ours.values() for ip in pod.addresses}
    settled = [known[uid] for uid in sorted(enrolled) if uid in known]
    return Findings(
        loose=tuple(e.pod.uid for e in settled if not attached.get(e.pod.uid, False)),
        wrong_rows=tuple(
            e.pod.uid
            for e in settled
            if any(rows.get(ip) != row_of(e.pod.capture, e.epoch, e.host_ifindex) for ip in e.pod.addresses)
        ),
        orphans=tuple(sorted(attached.keys() - ours.keys())),
        stray_rows=tuple(sorted(rows.keys() - addresses, key=str)),
    )
