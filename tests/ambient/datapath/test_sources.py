"""The sources are found, inlined once each, and versioned by content; the header tree has what bcc asks for."""

from __future__ import annotations

from pathlib import Path

from ambient.datapath import sources
from ambient.datapath.hooks import HOOKS


def test_every_hook_has_its_program_and_its_own_file() -> None:
    directory = sources.source_directory()
    for hook in HOOKS:
        assert f"PROGRAM int {hook.program}(" in (directory / f"{hook.program}.c").read_text()


def test_own_includes_are_inlined_once_and_system_includes_are_left(tmp_path: Path) -> None:
    (tmp_path / "a.h").write_text("int a;\n")
    (tmp_path / "b.h").write_text('#include "a.h"\nint b;\n')
    (tmp_path / "main.c").write_text('#include <linux/bpf.h>\n#include "a.h"\n#include "b.h"\n')
    assert sources.flatten(tmp_path / "main.c").split() == ["#include", "<linux/bpf.h>", "int", "a;", "int", "b;"]


def test_the_version_follows_any_header(tmp_path: Path) -> None:
    (tmp_path / "a.h").write_text("int a;\n")
    (tmp_path / sources.MAIN).write_text('#include "a.h"\n')
    before = sources.version(tmp_path)
    (tmp_path / "a.h").write_text("int a; /* changed */\n")
    assert sources.version(tmp_path) != before
    assert len(before) == 12


def test_the_header_tree_prefers_our_headers_and_hides_the_ones_that_bcc_brings(tmp_path: Path) -> None:
    shims = sources.source_directory() / "include" / "shim"
    sources.make_header_tree(tmp_path, shims)
    include = tmp_path / "include"
    assert (include / "linux" / "types.h").resolve() == (shims / "linux" / "types.h").resolve()
    assert (include / "linux" / "bpf.h").read_text() == ""
    assert "AMBIENT_SHIM_KCONFIG_H" in (include / "linux" / "kconfig.h").read_text()
    assert (include / "uapi" / "linux" / "tcp.h").exists()
