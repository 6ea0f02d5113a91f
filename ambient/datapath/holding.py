"""Descriptors of everything that is pinned on a node, so that pins are the second holder of the datapath, not the only.

A link lives as long as a pin or a descriptor: while the agent holds both, a stranger who sweeps bpffs takes no program
off, and what he unpinned is pinned again. Not for use from several threads.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from ambient.datapath import bpfsys
from ambient.datapath.exchange import NODE, PODS, PROGRAMS, SCHEMA
from ambient.datapath.maps import MAPS


class Holding:
    """Everything below `bpffs`: maps and programs from the start, links of pods as `take` is told."""

    def __init__(self, bpffs: Path) -> None:
        self._bpffs = bpffs
        self._held: dict[Path, int] = {}
        self._written = tuple((bpffs / SCHEMA).glob("*"))
        self._hold((bpffs / MAPS).glob("*"))
        self._hold((bpffs / PROGRAMS).glob("*/*"))
        self._hold((bpffs / PODS).glob("*/*"))
        self._hold((bpffs / NODE).glob("*"))

    def __len__(self) -> int:
        return len(self._held)

    def take(self, uid: str) -> None:
        """Hold the pod's links as they are pinned now; those that were held before are let go."""
        self.release(uid)
        self._hold((self._bpffs / PODS / uid).glob("*"))

    def take_node(self) -> None:
        """Hold the node's links as they are pinned now."""
        folder = self._bpffs / NODE
        for path in [path for path in self._held if path.parent == folder]:
            os.close(self._held.pop(path))
        self._hold(folder.glob("*"))

    def release(self, uid: str) -> None:
        """Let go of the pod's links: their pins alone decide now."""
        folder = self._bpffs / PODS / uid
        for path in [path for path in self._held if path.parent == folder]:
            os.close(self._held.pop(path))

    def restore(self) -> list[Path]:
        """Pin again what is held and not pinned any more, and say again what layout the maps have; gives what was
        missing of the pins. Raises KernelError or OSError."""
        for path in self._written:
            path.mkdir(parents=True, exist_ok=True)
        missing = [path for path in self._held if not path.exists()]
        for path in missing:
            path.parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileExistsError):
                bpfsys.pin(self._held[path], path)
        return missing

    def close(self) -> None:
        for descriptor in self._held.values():
            os.close(descriptor)
        self._held.clear()

    def _hold(self, pins: Iterable[Path]) -> None:
        for path in pins:
            with suppress(FileNotFoundError):
                self._held[path] = bpfsys.open_pin(path)
