"""The object loader: `python -m ambient.datapath.load_object JOB`, for nodes without bcc.

libbpf (by ctypes) opens the prebuilt object, pins its maps or takes over those already pinned, loads and pins the
programs, and the process exits. JOB is JSON: {"object", "maps", "programs"}. Nothing resident imports this.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from pathlib import Path

from ambient.errors import KernelError, MeshError, Unavailable


def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libbpf.so.1", use_errno=True)
    except OSError as error:
        raise Unavailable("no libbpf", "libbpf.so.1", str(error)) from error
    pointer = ctypes.c_void_p
    for name, result, arguments in (
        ("bpf_object__open_file", pointer, [ctypes.c_char_p, pointer]),
        ("bpf_object__load", ctypes.c_int, [pointer]),
        ("bpf_object__close", None, [pointer]),
        ("bpf_object__next_map", pointer, [pointer, pointer]),
        ("bpf_map__name", ctypes.c_char_p, [pointer]),
        ("bpf_map__set_pin_path", ctypes.c_int, [pointer, ctypes.c_char_p]),
        ("bpf_object__next_program", pointer, [pointer, pointer]),
        ("bpf_program__name", ctypes.c_char_p, [pointer]),
        ("bpf_program__pin", ctypes.c_int, [pointer, ctypes.c_char_p]),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def _check(result: int, what: str, where: str) -> None:
    if result < 0:
        raise KernelError(what, where, os.strerror(-result))


def load(path: Path, maps: Path, programs: Path) -> None:
    """Raises KernelError (the verifier's log is on stderr by then) or Unavailable."""
    library = _library()
    opened = library.bpf_object__open_file(os.fsencode(path), None)
    if not opened:
        raise KernelError("cannot open an eBPF object", str(path), os.strerror(ctypes.get_errno()))
    try:
        table = library.bpf_object__next_map(opened, None)
        while table:
            target = maps / library.bpf_map__name(table).decode()
            _check(library.bpf_map__set_pin_path(table, os.fsencode(target)), "cannot name a pin", str(target))
            table = library.bpf_object__next_map(opened, table)
        _check(library.bpf_object__load(opened), "the kernel refuses the programs", str(path))
        program = library.bpf_object__next_program(opened, None)
        while program:
            target = programs / library.bpf_program__name(program).decode()
            _check(library.bpf_program__pin(program, os.fsencode(target)), "cannot pin a program", str(target))
            program = library.bpf_object__next_program(opened, program)
    finally:
        library.bpf_object__close(opened)


def main(job: str) -> int:
    where = {key: Path(value) for key, value in json.loads(job).items()}
    try:
        load(where["object"], where["maps"], where["programs"])
    except MeshError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
