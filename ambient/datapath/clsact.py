"""Programs on an interface without TCX, as kernels before 6.6 have it: filters of a clsact queueing discipline.

A filter is no object that can be pinned. In its place stands a symbolic link whose text is a `Place`: where the filter
is; the filter's name is that of its program with the kernel's number of it and the uid of its pod. Ours is known by
preference and handle; that it is still this pod's by the uid, as the kernel gives numbers of namespaces again.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from pyroute2 import IPRoute  # type: ignore[import-untyped]
from pyroute2.netlink.exceptions import NetlinkError  # type: ignore[import-untyped]

from ambient.datapath import bpfsys
from ambient.datapath.hooks import Attach
from ambient.datapath.namespaces import open_namespace
from ambient.errors import KernelError
from ambient.netns import entered

PARENTS: Final = {Attach.TCX_INGRESS: 0xFFFFFFF2, Attach.TCX_EGRESS: 0xFFFFFFF3}
"""Of the filters of a direction (linux/pkt_sched.h)."""
HANDLE: Final = 0xA3B
_PREFERENCE: Final = 1
_OWN: Final = "ambient:"
_NOTHING_THERE: Final = frozenset({errno.ENOENT, errno.EINVAL, errno.ENODEV})


@dataclass(frozen=True, slots=True)
class Place:
    """`netns` is the inode of the network namespace, `pod` the uid of whose filter it is."""

    netns: int
    ifindex: int
    attach: Attach
    pod: str

    def __str__(self) -> str:
        return f"clsact:{self.netns}:{self.ifindex}:{int(self.attach)}"


def place_of(pin: Path) -> Place | None:
    """None for what is no such link: a pinned object. Raises FileNotFoundError."""
    if not pin.is_symlink():
        return None
    word, *numbers = os.readlink(pin).split(":")
    if word != "clsact" or len(numbers) != 3:
        raise KernelError("not a place of a filter", str(pin), os.readlink(pin))
    netns, ifindex, attach = map(int, numbers)
    return Place(netns, ifindex, Attach(attach), pin.parent.name)


def attach(place: Place, program: Path, where: str) -> None:
    """In the current network namespace, which is the place's. A filter of ours that is there is exchanged in one step.
    Raises KernelError."""
    with IPRoute() as route, bpfsys.opened(program) as descriptor:
        try:
            try:
                route.tc("add", "clsact", place.ifindex)
            except NetlinkError as error:
                if error.code != errno.EEXIST:
                    raise
            route.tc(
                "replace-filter",
                "bpf",
                place.ifindex,
                fd=descriptor,
                name=f"{_OWN}{program.name}:{bpfsys.program_id(program)}:{place.pod}",
                parent=PARENTS[place.attach],
                direct_action=True,
                prio=_PREFERENCE,
                handle=HANDLE,
            )
        except NetlinkError as error:
            raise KernelError("cannot attach a program by clsact", where, str(error)) from error


def filters(route: IPRoute, ifindex: int, hook: Attach) -> Iterator[tuple[int, str]]:
    """(handle, name) of the eBPF filters of a direction, in the order in which they run; none without clsact."""
    try:
        found = list(route.get_filters(index=ifindex, parent=PARENTS[hook]))
    except NetlinkError:
        return
    for one in found:
        options: Any = one.get_attr("TCA_OPTIONS")
        if one.get_attr("TCA_KIND") == "bpf" and hasattr(options, "get_attr"):
            yield int(one["handle"]), str(options.get_attr("TCA_BPF_NAME") or "")


def is_ours(handle: int, name: str) -> bool:
    return handle == HANDLE and name.startswith(_OWN)


def program_of(place: Place) -> int:
    """The number of the program that our filter there runs; 0 when it, its interface or its namespace is gone."""
    with _inside(place) as route:
        return 0 if route is None else _program_there(route, place)


def _program_there(route: IPRoute, place: Place) -> int:
    for handle, name in filters(route, place.ifindex, place.attach):
        _, number, pod = (*name.removeprefix(_OWN).split(":", 2), "", "")[:3]
        if (
            is_ours(handle, name) and number.isdigit() and pod in ("", place.pod)
        ):  # "": by a version before names had it
            return int(number)
    return 0


def put(place: Place, program: Path) -> None:
    """Have our filter there run this program; fine when it or its namespace is gone. Raises KernelError."""
    netns = open_namespace(place.netns) if program_of(place) else None
    if netns is not None:
        try:
            with entered(netns):
                attach(place, program, str(place))
        finally:
            os.close(netns)


def detach(place: Place) -> None:
    """Take our filter off, and clsact when it was the last; fine when any of it is gone. Raises KernelError."""
    with _inside(place) as route:
        if route is None or not _program_there(route, place):
            return
        parent = PARENTS[place.attach]
        try:
            route.tc("del-filter", "bpf", place.ifindex, parent=parent, prio=_PREFERENCE, handle=HANDLE)
            if not any(list(filters(route, place.ifindex, hook)) for hook in PARENTS):
                route.tc("del", "clsact", place.ifindex)
        except NetlinkError as error:
            if error.code not in _NOTHING_THERE:
                raise KernelError("cannot take off a program", str(place), str(error)) from error


@contextmanager
def _inside(place: Place) -> Iterator[IPRoute | None]:
    """Netlink of the namespace of that place; None when it is gone."""
    netns = open_namespace(place.netns)
    if netns is None:
        yield None
        return
    try:
        with entered(netns):
            route = IPRoute()
        with route:
            yield route
    finally:
        os.close(netns)
