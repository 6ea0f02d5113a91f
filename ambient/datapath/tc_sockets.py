"""Whether programs of tc may put sockets into maps on this kernel (since 7.3 they may not), and what is loaded then."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
from typing import Final, Literal

from ambient.datapath import bpfsys
from ambient.datapath.bpfinfo import Kind
from ambient.errors import KernelError

Listeners = Literal["reserved", "named"]
"""How pod_lookup gets at the listener whose name a program of tc has noted: it is in a map under that name since such a
program put it there (bpf/maps/reborn.h), or since it listens (listeners.h)."""

FORMS: Final[tuple[Listeners, ...]] = ("reserved", "named")
NAMED_MACRO: Final = "AMBIENT_NAMED_LISTENERS"
"""Defined when "named" is compiled."""

_PROG_LOAD: Final = 5
_SCHED_CLS: Final = 3
_INSTRUCTION: Final = struct.Struct("=BBhi")
SOCKET_AT: Final = 168
"""Where the socket is in struct __sk_buff."""
_LOAD_WORD, _STORE, _MOVE, _MOVE_FROM, _ADD, _IF_NOT, _MAP, _CALL, _EXIT = (
    *(0x79, 0x62, 0xB7, 0xBF, 0x07, 0x55, 0x18, 0x85, 0x95),
)
_UPDATE: Final = 2
"""BPF_FUNC_map_update_elem."""


def _program(table: int) -> bytes:
    """The smallest that puts the socket of a packet into the map (linux/bpf.h, struct bpf_insn; never run)."""
    return b"".join(
        _INSTRUCTION.pack(code, source << 4 | target, offset, value)
        for code, target, source, offset, value in (
            (_LOAD_WORD, 3, 1, SOCKET_AT, 0),
            (_IF_NOT, 3, 0, 2, 0),
            (_MOVE, 0, 0, 0, 0),
            (_EXIT, 0, 0, 0, 0),
            (_STORE, 10, 0, -8, 0),
            (_MOVE_FROM, 2, 10, 0, 0),
            (_ADD, 2, 0, 0, -8),
            (_MAP, 1, 1, 0, table),
            (0, 0, 0, 0, 0),
            (_MOVE, 4, 0, 0, 0),
            (_CALL, 0, 0, 0, _UPDATE),
            (_MOVE, 0, 0, 0, 0),
            (_EXIT, 0, 0, 0, 0),
        )
    )


def listeners() -> Listeners:
    """What this kernel takes, asked by loading that program. Raises KernelError where it loads none at all."""
    bpfsys.lift_memory_limit()
    what, where = "cannot ask what programs may do", "maps of sockets"
    try:
        table = bpfsys.call(bpfsys.MAP_CREATE, struct.pack("IIIII", Kind.SOCKHASH, 4, 8, 1, 0), what, where)
    except OSError as error:
        raise KernelError(what, where, os.strerror(error.errno or 0)) from error
    program, license_name = _program(table), ctypes.create_string_buffer(b"GPL")
    block = ctypes.create_string_buffer(program, len(program))
    count = len(program) // _INSTRUCTION.size
    request = struct.pack("IIQQ", _SCHED_CLS, count, ctypes.addressof(block), ctypes.addressof(license_name))
    try:
        os.close(bpfsys.call(_PROG_LOAD, request, what, where))
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EACCES):
            raise KernelError(what, where, os.strerror(error.errno or 0)) from error
        return "named"
    finally:
        os.close(table)
    return "reserved"
