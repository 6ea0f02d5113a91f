"""From the rows that should be to what must change. Pure.

New refusals come first: a connection that the new plan closes must not slip through while the plan is carried out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ambient.datapath.layout import FailMode, Flag, PodRow
from ambient.model.address import IpAddress


@dataclass(frozen=True, slots=True)
class Put:
    ip: IpAddress
    row: PodRow


@dataclass(frozen=True, slots=True)
class Delete:
    ip: IpAddress


Action = Put | Delete

_CAPTURES = Flag.CAPTURE_OUT | Flag.CAPTURE_IN


def _closing(row: PodRow, before: PodRow | None) -> bool:
    """The row refuses or captures something that went direct before."""
    if before is None:
        return True
    gained = row.flags & _CAPTURES & ~before.flags
    closed = (row.fail_in, row.fail_out) != (before.fail_in, before.fail_out) and FailMode.CLOSED in (
        row.fail_in if before.fail_in is FailMode.OPEN else FailMode.OPEN,
        row.fail_out if before.fail_out is FailMode.OPEN else FailMode.OPEN,
    )
    return bool(gained) or closed


def plan(wanted: Mapping[IpAddress, PodRow], present: Mapping[IpAddress, PodRow]) -> tuple[Action, ...]:
    """Actions that turn `present` into `wanted`: rows that close first, then rows that open, then deletions (a SYN of
    an attached pod without a row is refused, so a deletion opens nothing); each group in the order of addresses."""
    changed = [(ip, row) for ip, row in wanted.items() if present.get(ip) != row]
    changed.sort(key=lambda item: (not _closing(item[1], present.get(item[0])), item[0].version, int(item[0])))
    gone = sorted(present.keys() - wanted.keys(), key=lambda ip: (ip.version, int(ip)))
    return (*(Put(ip, row) for ip, row in changed), *(Delete(ip) for ip in gone))
