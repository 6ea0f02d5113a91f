"""Secrets in anonymous memory files: written once, sealed, passed as descriptors, never on a disk."""

from __future__ import annotations

import fcntl
import os
from typing import Final

from ambient.errors import InvalidInput

LARGEST: Final = 1 << 20
_SEALS: Final = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def sealed(name: str, content: bytes) -> int:
    """A memfd with `content` that nobody can change any more; the caller owns the descriptor."""
    fd = os.memfd_create(name, os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(fd, view) :]
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, _SEALS)
    except OSError:
        os.close(fd)
        raise
    return fd


def content(fd: int) -> bytes:
    """What a sealed memfd holds. Raises InvalidInput for a descriptor that is not one (it could change under us)."""
    try:
        seals = fcntl.fcntl(fd, fcntl.F_GET_SEALS)
        size = os.fstat(fd).st_size
    except OSError as error:
        raise InvalidInput("not a sealed memory file", f"descriptor {fd}", str(error)) from None
    if seals & _SEALS != _SEALS or size > LARGEST:
        raise InvalidInput("not a sealed memory file", f"descriptor {fd}", f"seals {seals:#x}, {size} bytes")
    return os.pread(fd, size, 0)
