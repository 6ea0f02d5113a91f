"""What is compiled, what it depends on, and what is said where it cannot be."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from ambient.errors import Unavailable
from ztunnel import compiling
from ztunnel.compiled import ROOT, abi, digest
from ztunnel.compiling import LEFT, compile_all, current, modules, sources, wanted


def test_every_module_of_the_hot_folders_is_compiled_or_left_for_a_reason() -> None:
    found = modules()
    assert {"ztunnel/hbone/connection.py", "ztunnel/proxy/relay.py", "ambient/model/rule_index.py"} <= set(found)
    assert not set(found) & set(LEFT)
    assert all((ROOT / name).is_file() for name in (*found, *LEFT))
    assert all(LEFT.values())


def test_what_derives_from_a_compiled_class_is_compiled_too() -> None:
    """An interpreted class cannot: making one of it fails, at run time only."""
    hot = modules()
    trees = {path: ast.parse((ROOT / path).read_text()) for path in hot}
    classes = {
        (path.removesuffix(".py").replace("/", "."), node.name)
        for path, tree in trees.items()
        for node in tree.body
        if isinstance(node, ast.ClassDef) and not any(_base(base) == "Protocol" for base in node.bases)
    }
    assert ("ztunnel.proxy.socket_end", "SocketEnd") in classes
    for path in (ROOT / "ztunnel").rglob("*.py"):
        name = path.relative_to(ROOT).as_posix()
        if name in hot or "_compiled" in name:
            continue
        tree = ast.parse(path.read_text())
        taken = {
            alias.asname or alias.name
            for node in tree.body
            if isinstance(node, ast.ImportFrom)
            for alias in node.names
            if (node.module, alias.name) in classes
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                assert not taken & {_base(base) for base in node.bases}, f"{name}: {node.name}"


def _base(base: ast.expr) -> str:
    return base.id if isinstance(base, ast.Name) else ""


def _tree(root: Path) -> None:
    files = {
        "ztunnel/__init__.py": "",
        "ztunnel/compiling.py": "",
        "ztunnel/hbone/__init__.py": "",
        "ztunnel/hbone/stream.py": "from ztunnel.hbone import frames\nimport ambient.errors\n",
        "ztunnel/hbone/frames.py": "import struct\n",
        "ambient/__init__.py": "",
        "ambient/errors.py": "def late() -> None:\n    from ambient.model import deep\n",
        "ambient/model/__init__.py": "",
        "ambient/model/deep.py": "",
        "ambient/model/matching.py": "",
        "ambient/model/rule_index.py": "",
        "ztunnel/dns/stream.py": "",
        "ambient/other.py": "",
    }
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def test_a_set_depends_on_all_that_it_imports_at_any_depth_and_on_nothing_else(tmp_path: Path) -> None:
    _tree(tmp_path)
    assert set(sources(["ztunnel/hbone/stream.py"], tmp_path)) == {
        "ztunnel/compiling.py",
        "ztunnel/hbone/__init__.py",
        "ztunnel/hbone/frames.py",
        "ztunnel/hbone/stream.py",
        "ambient/errors.py",
        "ambient/model/__init__.py",
        "ambient/model/deep.py",
    }


@pytest.mark.parametrize("name", ["ztunnel/hbone/stream.py", "ambient/model/deep.py", "ztunnel/compiling.py"])
def test_a_set_is_current_until_something_that_it_depends_on_changes(tmp_path: Path, name: str) -> None:
    _tree(tmp_path)
    folder = tmp_path / "_compiled"
    folder.mkdir()
    (folder / "stream.so").write_text("")
    manifest = {"sources": wanted(tmp_path), "libraries": {"ztunnel.hbone.stream": "stream.so"}, "made_with": ""}
    (folder / f"{abi()}.json").write_text(json.dumps(manifest))
    assert current(folder, tmp_path)
    (tmp_path / "ambient/other.py").write_text("other = 1\n")
    assert current(folder, tmp_path)
    (tmp_path / name).write_text("changed = 1\n")
    assert not current(folder, tmp_path)
    assert digest(tmp_path / name)


def test_a_new_module_in_a_hot_folder_makes_the_set_old(tmp_path: Path) -> None:
    _tree(tmp_path)
    before = wanted(tmp_path)
    (tmp_path / "ztunnel/hbone/new.py").write_text("")
    assert wanted(tmp_path) != before


def test_without_a_compiler_it_says_so_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(Unavailable, match=r"C compiler|Python\.h"):
        compile_all(tmp_path / "_compiled")
    assert [path.name for path in (tmp_path / "_compiled").iterdir()] == ["lock"]


def test_the_command_says_the_same_and_fails_without_a_word_of_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused() -> str:
        raise Unavailable("compile", "C compiler", "none of them is there")

    monkeypatch.setattr(compiling, "current", lambda: False)
    monkeypatch.setattr(compiling, "compile_all", refused)
    assert compiling.main(["--check"]) == 1
    assert compiling.main([]) == 1
    told = capsys.readouterr().err
    assert "not compiled, the sources are interpreted: compile: C compiler: none of them is there" in told
