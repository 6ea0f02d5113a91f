"""All eBPF links of the machine, by bpf(2) alone: other eyes than those of the code under test."""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
from collections.abc import Iterator

_SYSCALL = {"x86_64": 321, "aarch64": 280}
_GET_INFO_BY_FD, _LINK_GET_FD_BY_ID, _LINK_GET_NEXT_ID = 15, 30, 31
_INFO_SIZE = 128


def _bpf(command: int, attributes: bytes) -> tuple[int, bytes]:
    """(result, attributes as the kernel left them). Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    block = ctypes.create_string_buffer(attributes, 128)
    result = libc.syscall(_SYSCALL[platform.machine()], command, block, 128)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), f"bpf command {command}")
    return result, block.raw


def link_programs() -> list[int]:
    """The program id of every link that is there."""
    return [program for link in _ids() if (program := _program(link)) is not None]


def _ids() -> Iterator[int]:
    current = 0
    while True:
        try:
            _, left = _bpf(_LINK_GET_NEXT_ID, struct.pack("II", current, 0))
        except OSError as error:
            if error.errno == errno.ENOENT:
                return
            raise
        current = struct.unpack_from("I", left, 4)[0]
        yield current


def _program(link: int) -> int | None:
    """None when the link went meanwhile."""
    try:
        descriptor, _ = _bpf(_LINK_GET_FD_BY_ID, struct.pack("I", link))
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.EAGAIN):
            return None
        raise
    try:
        info = ctypes.create_string_buffer(_INFO_SIZE)
        _bpf(_GET_INFO_BY_FD, struct.pack("IIQ", descriptor, _INFO_SIZE, ctypes.addressof(info)))
        kind, identifier, program = struct.unpack_from("III", info.raw)
        assert (kind > 0, identifier) == (True, link)
        return int(program)
    finally:
        os.close(descriptor)
