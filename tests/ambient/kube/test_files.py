"""Atomic files and the lock."""

from __future__ import annotations

from pathlib import Path

import pytest

from ambient.errors import InvalidInput, Unavailable
from ambient.kube.files import locked, read_json, replace_json, signatures


def test_a_file_is_replaced_whole_and_leaves_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    replace_json(path, {"b": 1, "a": "ä"})
    replace_json(path, {"b": 2})
    assert read_json(path) == {"b": 2}
    assert [p.name for p in tmp_path.iterdir()] == ["a.json"]


@pytest.mark.parametrize("content", [b"", b"[1]", b"{", b"\xff", b"[" * 100_000])
def test_what_is_no_json_object_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(InvalidInput, match=r"a\.json"):
        read_json(tmp_path / "a.json")


def test_signatures_list_visible_json_files_only(tmp_path: Path) -> None:
    for name in ("a.json", ".hidden.json", "b.txt", ".revision"):
        (tmp_path / name).write_text("{}")
    before = signatures(tmp_path)
    assert list(before) == ["a.json"]
    replace_json(tmp_path / "a.json", {"longer": 1})
    assert signatures(tmp_path) != before
    assert signatures(tmp_path / "missing") == {}


def test_the_lock_excludes_a_writer_while_readers_share_it(tmp_path: Path) -> None:
    lock = tmp_path / ".lock"
    readers = (locked(lock, exclusive=False), locked(lock, exclusive=False, wait=False))
    with readers[0], readers[1], pytest.raises(Unavailable), locked(lock, exclusive=True, wait=False):
        pytest.fail("a writer got in beside readers")
    with locked(lock, exclusive=True), pytest.raises(Unavailable), locked(lock, exclusive=False, wait=False):
        pytest.fail("a reader got in beside a writer")
    with locked(lock, exclusive=True, wait=False):
        pass
