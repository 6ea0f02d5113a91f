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
from pyroute2.netlink.exceptions import NetlinkError  # type: ignore[import-untyped]

from ambient.datapath import bpfsys
from ambient.datapath.exchange import PROGRAMS
from ambient.datapath.hooks import Attach
from ambient.netns import entered

_DIRECTIONS: Final = ((Attach.TCX_INGRESS, "ingress", 0xFFFFFFF2), (Attach.TCX_EGRESS, "egress", 0xFFFFFFF3))
"""TCX hook, its name, and the parent of clsact filters of that direction (linux/pkt_sched.h)."""


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
    for attach, direction, _ in _DIRECTIONS:
        there = bpfsys.attached_programs(index, attach)
        our_place = min((place for place, program in enumerate(there) if program in ours), default=len(there))
        for place, program in enumerate(there):
            if program not in ours:
                yield Stranger(interface, direction, "tcx", bpfsys.program_name(program), first=place < our_place)


def _on_clsact(index: int, interface: str) -> Iterator[Stranger]:
    with IPRoute() as route:
        for _, direction, parent in _DIRECTIONS:
            try:
                filters = route.get_filters(index=index, parent=parent)
            except NetlinkError:
                continue  # no clsact there
            for one in filters:
                options = one.get_attr("TCA_OPTIONS")
                name = options.get_attr("TCA_BPF_NAME") if hasattr(options, "get_attr") else None
                if one.get_attr("TCA_KIND") == "bpf" and options is not None and name:
                    yield Stranger(interface, direction, "clsact", str(name))
