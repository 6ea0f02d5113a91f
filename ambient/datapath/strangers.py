"""Programs of others on the interfaces where ours are: who they are, and whether they run before ours.

A CNI's programs behind ours have their say on what we pass; one before ours may take, change or drop what we should
judge. Nothing of others is touched. clsact filters run after all TCX programs.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pyroute2 import IPRoute  # type: ignore[import-untyped]

from ambient.datapath import bpfsys, clsact
from ambient.datapath.exchange import PROGRAMS
from ambient.datapath.hooks import Attach
from ambient.netns import entered

_DIRECTIONS: Final = ((Attach.TCX_INGRESS, "ingress"), (Attach.TCX_EGRESS, "egress"))


@dataclass(frozen=True, slots=True)
class Stranger:
    """`name` as its loader gave it; `kind` "tcx" or "clsact"; `first`: it sees packets before ours do."""

    interface: str
    direction: str
    kind: str
    name: str
    first: bool = False

    def __str__(self) -> str:
        order = "before ours" if self.first else "after ours"
        return f"{self.name or 'a program'} ({self.kind}, {self.direction} of {self.interface}, {order})"


def strangers(bpffs: Path, netns_fd: int, interface: str) -> tuple[Stranger, ...]:
    """Programs of others on an interface of that namespace; () when there is no such interface."""
    ours = {bpfsys.program_id(path) for path in (bpffs / PROGRAMS).glob("*/*")}
    with entered(netns_fd):
        try:
            index = socket.if_nametoindex(interface)
        except OSError:
            return ()
        return (*_on_tcx(index, interface, ours), *_on_clsact(index, interface))


def _on_tcx(index: int, interface: str, ours: set[int]) -> Iterator[Stranger]:
    for attach, direction in _DIRECTIONS:
        there = bpfsys.attached_programs(index, attach)
        our_place = min((place for place, program in enumerate(there) if program in ours), default=len(there))
        for place, program in enumerate(there):
            if program not in ours:
                yield Stranger(interface, direction, "tcx", bpfsys.program_name(program), first=place < our_place)


def _on_clsact(index: int, interface: str) -> Iterator[Stranger]:
    """Behind TCX; where ours are filters themselves, those before them in the list run first."""
    with IPRoute() as route:
        for attach, direction in _DIRECTIONS:
            found = list(clsact.filters(route, index, attach))
            ours = [place for place, (handle, name) in enumerate(found) if clsact.is_ours(handle, name)]
            for place, (handle, name) in enumerate(found):
                if name and not clsact.is_ours(handle, name):
                    yield Stranger(interface, direction, "clsact", name, first=bool(ours) and place < ours[0])
