"""From the maps of one version of the programs to those of another: which stay, which are filled anew, and how.

A map that both versions lay out alike is one and the same map. Of one that differs the entries are carried over, member
by member (`shapes`), in either direction. What cannot be read from outside begins empty: rings of events, sockets under
names that programs give them when they need them, tables of tables (the agent fills them again). So does what is noted
of a packet for one look-up. What is kept in sockets cannot begin empty unseen: such a map is never changed, a new one
takes a new name. Nor is that of the listeners, which are put there once, when they begin to listen: each would keep a
name under which nobody is found.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Final

from ambient.datapath import bpfinfo, bpfsys
from ambient.datapath.bpfinfo import Kind, MapLayout
from ambient.datapath.shapes import Shape, converted
from ambient.errors import InvalidInput, KernelError

_PER_CPU: Final = frozenset({Kind.PERCPU_HASH, Kind.PERCPU_ARRAY, Kind.LRU_PERCPU_HASH})
_ARRAYS: Final = frozenset({Kind.ARRAY, Kind.PERCPU_ARRAY})
_CARRIED: Final = _PER_CPU | {Kind.HASH, Kind.ARRAY, Kind.LRU_HASH, Kind.LPM_TRIE}
_TABLES: Final = frozenset({Kind.HASH_OF_MAPS, Kind.ARRAY_OF_MAPS})
_NEVER_CHANGED: Final = frozenset({Kind.SK_STORAGE})
_LISTENERS: Final = "listeners"
_MOMENTARY: Final = frozenset({"reservations"})
"""What they hold is over before the new one is used (`unnoted`)."""
_WORD: Final = 8


def layouts(directory: Path) -> dict[str, MapLayout]:
    """By name, of all maps that are pinned there."""
    return {pin.name: bpfinfo.map_layout(pin) for pin in sorted(directory.iterdir())} if directory.is_dir() else {}


def alike(old: dict[str, MapLayout], new: dict[str, MapLayout]) -> frozenset[str]:
    """The maps that stay. A table of tables stays with the map that is the shape of its tables, which is called after
    it ("deny", "deny_rows"). Raises KernelError when one may not change and does."""
    same = {name for name, layout in new.items() if old.get(name) == layout}
    for name in new.keys() & old.keys() - same:
        if name == _LISTENERS or {new[name].kind, old[name].kind} & _NEVER_CHANGED:
            why = "what it keeps lives with sockets and cannot be carried over: give the new map another name"
            raise KernelError("a map has another layout", name, why)
    return frozenset(
        name
        for name in same
        if new[name].kind not in _TABLES or all(one in same for one in new if one.startswith(f"{name}_"))
    )


def carry(old: Path, new: Path, *, again: bool = False) -> int:
    """Put the entries of one pinned map into another; gives how many. `again`: those only that came since, of what
    programs write. Nothing when its kind begins empty. Raises KernelError when one does not fit or the map is full."""
    before, after = bpfinfo.map_layout(old), bpfinfo.map_layout(new)
    if before.kind != after.kind or after.kind not in _CARRIED or (again and after.kind in _ARRAYS):
        return 0
    if new.name in _MOMENTARY:
        return 0
    source, target = _open(old, before), _open(new, after)
    try:
        count = 0
        for key in list(itertools.islice(source.walk(), 2 * before.entries)):
            value = source.get(key)
            if value is None or (before.kind in _ARRAYS and int.from_bytes(key, sys.byteorder) >= after.entries):
                continue
            name = _converted(key, before.key, after.key, old)
            if not (again and target.get(name) is not None):
                target.put(name, _values(value, before, after, old))
                count += 1
        return count
    finally:
        source.close()
        target.close()


def _open(path: Path, layout: MapLayout) -> bpfsys.Map:
    per_cpu = layout.kind in _PER_CPU
    size = _stride(layout.value) * bpfsys.possible_cpus() if per_cpu else layout.value.size
    return bpfsys.Map(path, layout.key.size, size)


def _stride(shape: Shape) -> int:
    """Values of single CPUs lie on words of eight bytes."""
    return (shape.size + _WORD - 1) // _WORD * _WORD


def _values(data: bytes, old: MapLayout, new: MapLayout, where: Path) -> bytes:
    if new.kind not in _PER_CPU:
        return _converted(data, old.value, new.value, where)
    step, width = _stride(old.value), _stride(new.value)
    slots = (data[at : at + old.value.size] for at in range(0, len(data), step))
    return b"".join(_converted(slot, old.value, new.value, where).ljust(width, b"\0") for slot in slots)


def _converted(data: bytes, old: Shape, new: Shape, where: Path) -> bytes:
    try:
        return converted(data, old, new)
    except InvalidInput as error:
        raise KernelError("an entry cannot be carried over", f"{where.name}: {error.where}", error.why) from error
