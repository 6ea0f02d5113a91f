"""The network namespaces of the node, found by what holds them: a name or a process."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_HOLDERS: Final = ((Path("/run/netns"), "*"), (Path("/proc"), "[0-9]*/ns/net"))


def namespaces() -> Iterator[int]:
    """A descriptor of each, once; whoever goes on iterating has seen the last of the one before."""
    seen: set[int] = set()
    for directory, pattern in _HOLDERS:
        for path in directory.glob(pattern):
            try:
                inode = path.stat().st_ino
                if inode in seen:
                    continue
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            except OSError:
                continue  # a process that ended meanwhile
            seen.add(inode)
            try:
                yield fd
            finally:
                os.close(fd)


def open_namespace(inode: int) -> int | None:
    """The namespace of that inode; None when nothing holds it any more."""
    for fd in namespaces():
        if os.fstat(fd).st_ino == inode:
            return os.dup(fd)
    return None
