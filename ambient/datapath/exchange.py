"""From the programs and maps that are pinned to those of another version, such that it may be ended anywhere.

A version is made ready beside the one that runs (`stage`): its programs, its maps with what the old ones held, all
below `loading-*`, which becomes `next` in one step once it is whole. From then on the way leads forward only
(`finish`): every link takes its new program, what was written meanwhile follows, pins move, the old version goes. Each
of these steps may be done twice, so that whoever comes after one that was ended goes on where it stopped.

    maps/<name>  programs/<version>/<program>  next/{maps,programs}/...  schema/<layout of the maps>
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from ambient.datapath import bpfinfo, bpfsys, hooked
from ambient.datapath.carry import alike, carry, layouts
from ambient.datapath.maps import MAPS
from ambient.datapath.unnoted import unnoted

PROGRAMS: Final = "programs"
PODS: Final = "pods"
NODE: Final = "node"
NEXT: Final = "next"
SCHEMA: Final = "schema"
_MOVING: Final = "moving"

Load = Callable[[Path, Path], None]
"""Load programs and pin them in the second directory; maps are those pinned in the first, or new ones pinned there."""

Checkpoint = Callable[[str], None]
"""Called before each step with its name; for tests that end it there."""


def no_checkpoint(_step: str) -> None:
    pass


def stage(bpffs: Path, version: str, load: Load, checkpoint: Checkpoint = no_checkpoint) -> None:
    """Have `next` ready: that version with maps that hold what the present ones hold. Raises what `load` raises, and
    KernelError when something cannot be carried over; nothing that runs was touched then."""
    for left in bpffs.glob("loading-*"):
        shutil.rmtree(left)
    loading = bpffs / f"loading-{os.getpid()}"
    maps, programs = loading / MAPS, loading / PROGRAMS / version
    try:
        maps.mkdir(parents=True)
        programs.mkdir(parents=True)
        checkpoint("load")
        load(maps, programs)
        before, after = layouts(bpffs / MAPS), layouts(maps)
        kept = alike(before, after)
        if kept:
            for name in kept:
                (maps / name).unlink()
                _pin_again(bpffs / MAPS / name, maps / name)
            shutil.rmtree(programs)
            programs.mkdir()
            checkpoint("load with the maps that stay")
            load(maps, programs)
        for name in sorted(after.keys() & before.keys() - kept):
            checkpoint(f"carry {name}")
            carry(bpffs / MAPS / name, maps / name)
        checkpoint("whole")
        loading.rename(bpffs / NEXT)
    except BaseException:
        shutil.rmtree(loading, ignore_errors=True)
        raise


def finish(bpffs: Path, checkpoint: Checkpoint = no_checkpoint) -> None:
    """Go over to `next`, from wherever that was left; nothing when there is none. Raises KernelError."""
    staged = bpffs / NEXT
    if not staged.is_dir():
        return
    version = next((staged / PROGRAMS).iterdir(), None)
    if version is not None:
        checkpoint("links")
        with unnoted(bpffs / MAPS, staged / MAPS):
            switch_links(bpffs, version, checkpoint)
        checkpoint("linked")
        names = {pin.name for pin in (staged / MAPS).iterdir()}
        for pin in sorted((bpffs / MAPS).iterdir()):
            checkpoint(f"map {pin.name}")
            if pin.name not in names:
                pin.unlink()
            elif bpfinfo.map_id(pin) != bpfinfo.map_id(staged / MAPS / pin.name):
                carry(pin, staged / MAPS / pin.name, again=True)
        for name in sorted(names):
            checkpoint(f"pin {name}")
            _replace_pin(bpffs, staged / MAPS / name, bpffs / MAPS / name)
        checkpoint("schema")
        _write_schema(bpffs)
        for other in (bpffs / PROGRAMS).iterdir():
            checkpoint("old programs")
            shutil.rmtree(other)
        checkpoint("programs")
        version.rename(bpffs / PROGRAMS / version.name)
    checkpoint("end")
    done = bpffs / f"loading-{os.getpid()}"
    staged.rename(done)
    shutil.rmtree(done)


def switch_links(bpffs: Path, programs: Path, checkpoint: Checkpoint = no_checkpoint) -> None:
    """Every link of every pod and of the node runs the program of its name from `programs`, each exchanged atomically;
    one whose program this version does not have goes."""
    for pin in sorted((*(bpffs / PODS).glob("*/*"), *(bpffs / NODE).glob("*"))):
        checkpoint(f"link {pin.name}")
        target = programs / pin.name
        if not target.exists():
            hooked.take_off(pin)
        elif hooked.target(pin):
            hooked.put_program(pin, target)


def repair_pins(bpffs: Path, programs: Path) -> list[str]:
    """Pin under their names the maps that the programs use, whatever is pinned there; gives the names that were wrong.
    Maps that no program uses by itself (the shape of a table's tables) are left."""
    used = {number for pin in programs.iterdir() for number in bpfinfo.program_maps(pin)}
    wrong = []
    for number in sorted(used):
        name = bpfinfo.map_name(number)
        pin = bpffs / MAPS / name
        with suppress(FileNotFoundError):
            if bpfinfo.map_id(pin) == number:
                continue
        moving = _moving(bpffs) / name
        with bpfinfo.opened_map(number) as table:
            bpfsys.pin(table, moving)
        moving.rename(pin)
        moving.parent.rmdir()
        wrong.append(name)
    return wrong


def schema(bpffs: Path) -> str:
    """Twelve hex digits that change with the layout of any map that is pinned."""
    described = sorted(layouts(bpffs / MAPS).items())
    return hashlib.sha256(repr(described).encode()).hexdigest()[:12]


def _write_schema(bpffs: Path) -> None:
    directory = bpffs / SCHEMA / schema(bpffs)
    directory.mkdir(parents=True, exist_ok=True)
    for other in directory.parent.iterdir():
        if other != directory:
            other.rmdir()


def is_as_written(bpffs: Path) -> bool:
    """The maps are laid out as whoever pinned them wrote down; also where nobody did, before this was written down."""
    directory = bpffs / SCHEMA
    return not directory.is_dir() or {path.name for path in directory.iterdir()} == {schema(bpffs)}


def _replace_pin(bpffs: Path, source: Path, pin: Path) -> None:
    """`pin` is the object of `source` from one moment to the next."""
    with suppress(FileNotFoundError):
        if bpfinfo.map_id(pin) == bpfinfo.map_id(source):
            return
    moving = _moving(bpffs) / pin.name
    _pin_again(source, moving)
    moving.rename(pin)
    moving.parent.rmdir()


def _moving(bpffs: Path) -> Path:
    """An empty directory; a name that is taken cannot be pinned, only replaced."""
    directory = bpffs / _MOVING
    with suppress(FileNotFoundError):
        shutil.rmtree(directory)
    directory.mkdir()
    return directory


def _pin_again(source: Path, pin: Path) -> None:
    with bpfsys.opened(source) as descriptor:
        bpfsys.pin(descriptor, pin)
