"""The same on arm64: the object is the same bytes, and every structure that Python writes or reads lies the same.

Compiled for aarch64 by clang with the generic kernel headers (those of arm64 add nothing to them here); not run there.
"""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

import pytest

from ambient.datapath import bpfsys, sources
from ambient.datapath.layout import MIRRORS

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
)
"""Of the answers of bpf(2), what is read at a number: structure, member, offset."""


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


def test_the_object_is_the_same_bytes(headers: Path, tmp_path: Path) -> None:
    main = str(sources.source_directory() / sources.MAIN)
    built = []
    for name, include in (("here", sources.architecture_includes()), ("arm64", headers)):
        clang("-O2", "-target", "bpfel", "-I", str(include), "-c", main, "-o", str(tmp_path / name))
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


def test_sabotage_another_layout_is_seen(headers: Path, tmp_path: Path) -> None:
    source = tmp_path / "layout.c"
    main = sources.source_directory() / sources.MAIN
    source.write_text(f'#include "{main}"\n_Static_assert(sizeof(struct pod_row) == 21, "pod_row");\n')
    with pytest.raises(AssertionError, match="pod_row"):
        clang("-fsyntax-only", "-target", "aarch64-linux-gnu", "-I", str(headers), "-w", str(source))
