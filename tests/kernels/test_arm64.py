"""The same on arm64: the object is the same bytes, and every structure that Python writes or reads lies the same.

Compiled for aarch64 by clang with the generic kernel headers (those of arm64 add nothing to them here). What writes
every structure is run there, by qemu-user; the programs themselves are not.
"""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from ambient.datapath import bpfsys, sources
from ambient.datapath.layout import MIRRORS
from ambient.datapath.tc_sockets import FORMS, NAMED_MACRO, SOCKET_AT, Listeners

KERNEL = (
    ("bpf_map_info", "id", 4),
    ("bpf_map_info", "map_flags", 20),
    ("bpf_map_info", "name", 24),
    ("bpf_map_info", "btf_id", 64),
    ("bpf_map_info", "btf_value_type_id", 72),
    ("bpf_prog_info", "id", 4),
    ("bpf_prog_info", "nr_map_ids", 52),
    ("bpf_prog_info", "map_ids", 56),
    ("bpf_prog_info", "name", 64),
    ("bpf_prog_info", "btf_id", 128),
    ("bpf_link_info", "prog_id", 8),
    ("__sk_buff", "sk", SOCKET_AT),
)
"""Of the answers of bpf(2), and of what tc gives a program, what is read at a number: structure, member, offset."""


START = """
static long call(long number, long first, long second, long third)
{
	register long x8 asm("x8") = number;
	register long x0 asm("x0") = first;
	register long x1 asm("x1") = second;
	register long x2 asm("x2") = third;

	asm volatile("svc 0" : "+r"(x0) : "r"(x1), "r"(x2), "r"(x8) : "memory");
	return x0;
}
static void write_out(void *what, long size) { call(64, 1, (long)what, size); }
void _start(void) {
"""
"""A program without a library, which writes to its standard output (system call 64) and ends (93)."""


@pytest.fixture(scope="module")
def headers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """<asm/...> as arm64 has it: the generic headers and its byte order."""
    tree = tmp_path_factory.mktemp("arm64")
    asm = tree / "asm"
    asm.mkdir()
    for header in Path("/usr/include/asm-generic").glob("*.h"):
        (asm / header.name).symlink_to(header)
    (asm / "byteorder.h").write_text("#include <linux/byteorder/little_endian.h>\n")
    return tree


def clang(*words: str) -> None:
    done = subprocess.run(["clang", *words], capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("form", FORMS)
def test_the_object_is_the_same_bytes(headers: Path, tmp_path: Path, form: Listeners) -> None:
    main = str(sources.source_directory() / sources.MAIN)
    flags = ("-O2", "-target", "bpfel", *([f"-D{NAMED_MACRO}"] if form == "named" else []))
    built = []
    for name, include in (("here", sources.architecture_includes()), ("arm64", headers)):
        clang(*flags, "-I", str(include), "-c", main, "-o", str(tmp_path / name))
        built.append((tmp_path / name).read_bytes())
    assert built[0] == built[1]


@pytest.mark.parametrize("machine", ["aarch64", "x86_64"])
def test_every_structure_lies_as_its_mirror_says(headers: Path, tmp_path: Path, machine: str) -> None:
    directory = sources.source_directory()
    lines = [f'#include "{directory / sources.MAIN}"', "#include <stddef.h>", "#include <asm-generic/unistd.h>"]
    for mirror in MIRRORS:
        name = mirror.__name__
        lines.append(f'_Static_assert(sizeof(struct {name}) == {ctypes.sizeof(mirror)}, "{name}");')
        for field, *_ in mirror._fields_:
            offset = getattr(mirror, field).offset
            lines.append(f'_Static_assert(offsetof(struct {name}, {field}) == {offset}, "{name}.{field}");')
    lines += [
        f'_Static_assert(offsetof(struct {name}, {member}) == {offset}, "{name}.{member}");'
        for name, member, offset in KERNEL
    ]
    lines.append(f'_Static_assert(__NR_bpf == {bpfsys.SYSCALL["aarch64"]}, "bpf(2) on arm64");')
    lines.append('_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "byte order");')
    source = tmp_path / "layout.c"
    source.write_text("\n".join(lines) + "\n")
    clang("-fsyntax-only", "-target", f"{machine}-linux-gnu", "-I", str(headers), "-w", str(source))


def numbers(made: Any, name: str) -> Iterator[tuple[str, int, Callable[[int], None]]]:
    """Of every number in a structure: its name in C, its size, and what sets it."""
    if isinstance(made, ctypes.Array):
        for at in range(len(made)):
            yield f"{name}[{at}]", ctypes.sizeof(made._type_), partial(made.__setitem__, at)
        return
    for field, kind, *_ in made._fields_:
        if issubclass(kind, ctypes.Structure | ctypes.Array):
            yield from numbers(getattr(made, field), f"{name}.{field}")
        else:
            yield f"{name}.{field}", ctypes.sizeof(kind), partial(setattr, made, field)


def filled(mirror: type[ctypes.Structure]) -> tuple[list[str], bytes]:
    """Assignments in C of another value to each number of the structure, and what Python makes of the same."""
    made, lines = mirror(), []
    for number, (name, size, put) in enumerate(numbers(made, "one"), 1):
        value = number * 0x0102030405060708 % (1 << 8 * size)
        lines.append(f"{name} = {value:#x}ULL;")
        put(value)
    return lines, bytes(made)


def test_what_a_program_writes_there_is_what_python_reads_here(headers: Path, tmp_path: Path) -> None:
    wanted, source = b"", [f'#include "{sources.source_directory() / sources.MAIN}"', START]
    for mirror in MIRRORS:
        lines, data = filled(mirror)
        wanted += data
        source += [f"{{ static struct {mirror.__name__} one;", *lines, "write_out(&one, sizeof(one)); }"]
    source.append("call(93, 0, 0, 0); }")
    main, made, program = (tmp_path / name for name in ("main.c", "main.o", "main"))
    main.write_text("\n".join(source) + "\n")
    there = ("-target", "aarch64-linux-gnu", "-O1", "-ffreestanding", "-fno-pic", "-mno-outline-atomics")
    clang(*there, "-ffunction-sections", "-fdata-sections", "-I", str(headers), "-w", "-c", str(main), "-o", str(made))
    words = ("aarch64-linux-gnu-ld", "--gc-sections", "-static", str(made), "-o", str(program))
    linked = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    assert linked.returncode == 0, linked.stderr
    ran = subprocess.run(("qemu-aarch64", str(program)), capture_output=True, stdin=subprocess.DEVNULL, check=True)
    assert ran.stdout == wanted


def test_sabotage_another_layout_is_seen(headers: Path, tmp_path: Path) -> None:
    source = tmp_path / "layout.c"
    main = sources.source_directory() / sources.MAIN
    source.write_text(f'#include "{main}"\n_Static_assert(sizeof(struct pod_row) == 21, "pod_row");\n')
    with pytest.raises(AssertionError, match="pod_row"):
        clang("-fsyntax-only", "-target", "aarch64-linux-gnu", "-I", str(headers), "-w", str(source))
