"""The compiled form runs only while it is what the sources say: whole, current, in time; and it is told which runs."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ztunnel import compiled, compiling
from ztunnel.compiled import FOLDER, ROOT, abi, digest, use


def _set(root: Path, **changes: Any) -> Path:
    """A compiled set of one module that depends on one more source, as far as `use` looks at it."""
    folder = root / "_compiled"
    folder.mkdir()
    for name in ("hot.py", "constants.py", "_compiled/hot.so"):
        (root / name).write_text(f"# {name}\n")
    sources = {name: digest(root / name) for name in ("hot.py", "constants.py")}
    manifest = {"sources": sources, "libraries": {"hot": "hot.so"}, "made_with": "a compiler", **changes}
    (folder / f"{abi()}.json").write_text(json.dumps(manifest))
    return folder


def test_a_set_made_from_these_sources_is_found_by_imports_and_nothing_else_is(tmp_path: Path) -> None:
    finders: list[Any] = []
    form = use({}, _set(tmp_path), tmp_path, finders, {})
    assert form.compiled
    assert str(form) == "compiled (0 modules, a compiler)"
    (finder,) = finders
    spec = finder.find_spec("hot")
    assert spec is not None
    assert spec.origin == str(tmp_path / "_compiled" / "hot.so")
    assert finder.find_spec("constants") is None


def _edit(root: Path) -> None:
    (root / "hot.py").write_text("# hot.py, edited\n")


def _edit_what_it_imports(root: Path) -> None:
    (root / "constants.py").write_text("# constants.py, edited\n")


def _remove_a_source(root: Path) -> None:
    (root / "constants.py").unlink()


def _remove_the_library(root: Path) -> None:
    (root / "_compiled" / "hot.so").unlink()


def _another_interpreter(root: Path) -> None:
    (root / "_compiled" / f"{abi()}.json").rename(root / "_compiled" / "another.json")


def _tear_the_manifest(root: Path) -> None:
    path = root / "_compiled" / f"{abi()}.json"
    path.write_text(path.read_text()[:-9])


@pytest.mark.parametrize(
    ("harm", "why"),
    [
        (_edit, "hot.py is not what was compiled"),
        (_edit_what_it_imports, "constants.py is not what was compiled"),
        (_remove_a_source, "constants.py is not what was compiled"),
        (_remove_the_library, "hot.so is gone"),
        (_another_interpreter, "nothing was compiled"),
        (_tear_the_manifest, "unusable manifest"),
    ],
)
def test_whatever_does_not_fit_the_sources_run_and_it_is_said_why(
    tmp_path: Path, harm: Callable[[Path], None], why: str
) -> None:
    folder, finders = _set(tmp_path), list[Any]()
    harm(tmp_path)
    form = use({}, folder, tmp_path, finders, {})
    assert not form.compiled
    assert why in str(form)
    assert str(form).startswith("interpreted (")
    assert not finders


def test_modules_that_are_loaded_already_are_not_mixed_with_compiled_ones(tmp_path: Path) -> None:
    finders: list[Any] = []
    form = use({}, _set(tmp_path), tmp_path, finders, {"hot": sys})
    assert not form.compiled
    assert "hot was imported before" in form.why
    assert not finders


def test_an_operator_can_have_the_sources_run(tmp_path: Path) -> None:
    finders: list[Any] = []
    form = use({compiled.SWITCH: "never"}, _set(tmp_path), tmp_path, finders, {})
    assert (form.compiled, form.why, finders) == (False, "ZTUNNEL_COMPILED=never", [])


_TELL = """
from ztunnel import compiled
form = compiled.use({})
from ztunnel.hbone import frames
print(form.compiled, frames.__file__.endswith(".so"), frames.code_name(0))
"""


def test_what_is_said_is_what_runs_and_an_edit_wins_over_what_was_compiled_before_it(tmp_path: Path) -> None:
    """With the real set, if this machine can make one."""
    for package in ("ambient", "ztunnel"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("_compiled", "__pycache__"))
    if FOLDER.is_dir():
        (tmp_path / "ztunnel" / "_compiled").symlink_to(FOLDER)

    def tell() -> list[str]:
        done = subprocess.run([sys.executable, "-c", _TELL], cwd=tmp_path, capture_output=True, text=True, check=True)
        return done.stdout.split()

    is_compiled = str(compiling.current())
    assert tell() == [is_compiled, is_compiled, "NO_ERROR"]
    frames = tmp_path / "ztunnel" / "hbone" / "frames.py"
    frames.write_text(frames.read_text().replace("return Code(code).name", 'return "edited"'))
    assert tell() == ["False", "False", "edited"]
