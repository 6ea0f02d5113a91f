"""Discovery on disk: whole or not at all, for its own node only, never half a file."""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambient.errors import InvalidInput, Unavailable
from ambient.xds.client import STAND_IN_VERSION
from ambient.xds.codec import ADDRESS_TYPE, AUTHORIZATION_TYPE
from ambient.xds.steps import finish
from tests.support.discovery import rich_policy, rich_service, rich_workload, simple_workload
from ztunnel.director.snapshot import Snapshot, SnapshotFile, read, write

RECORDS = (rich_workload(), rich_service(), rich_policy())
VERSIONS = {
    ADDRESS_TYPE: {RECORDS[0].uid: "1", RECORDS[1].key: "2"},
    AUTHORIZATION_TYPE: {RECORDS[2].key: "3"},
}
SNAPSHOT = Snapshot(RECORDS, VERSIONS)


def pack(snapshot: Snapshot, owner: str) -> bytes:
    with tempfile.TemporaryFile() as file:
        finish(write(file, snapshot, owner))
        file.seek(0)
        return file.read()


def unpack(data: bytes, owner: str) -> Snapshot:
    with tempfile.TemporaryFile() as file:
        file.write(data)
        file.seek(0)
        return finish(read(file, owner))


def test_everything_comes_back_with_its_versions(tmp_path: Path) -> None:
    file = SnapshotFile(str(tmp_path / "state"), "c/n1")
    assert file.load() is None
    file.save(RECORDS, VERSIONS)
    assert file.load() == SNAPSHOT
    assert [path.name for path in (tmp_path / "state").iterdir()] == ["discovery.snapshot"]
    assert (tmp_path / "state" / "discovery.snapshot").stat().st_mode & 0o777 == 0o600


def test_without_a_folder_nothing_is_kept() -> None:
    file = SnapshotFile("", "c/n1")
    file.save(RECORDS, VERSIONS)
    assert file.load() is None


@given(st.data())
def test_any_changed_byte_is_noticed(data: st.DataObject) -> None:
    whole = bytearray(pack(SNAPSHOT, "c/n1"))
    position = data.draw(st.integers(0, len(whole) - 1))
    whole[position] ^= data.draw(st.integers(1, 255))
    with pytest.raises(InvalidInput):
        unpack(bytes(whole), "c/n1")


@given(st.integers(0, 400))
def test_a_truncated_file_is_noticed(length: int) -> None:
    with pytest.raises(InvalidInput):
        unpack(pack(SNAPSHOT, "c/n1")[:length], "c/n1")


def test_another_nodes_snapshot_is_refused() -> None:
    with pytest.raises(InvalidInput, match="c/n2"):
        unpack(pack(SNAPSHOT, "c/n2"), "c/n1")


def test_a_resource_without_its_version_is_not_written() -> None:
    with pytest.raises(InvalidInput, match="no version"):
        pack(Snapshot((simple_workload("a"),), VERSIONS), "c/n1")


@pytest.mark.parametrize(
    ("line", "why"),
    [(b"ambient discovery\n", "format 1, not 2"), (b"ambient discovery 3\n", "format 3, not 2"), (b"{}\n", "else")],
)
def test_another_format_is_refused_by_name(line: bytes, why: str) -> None:
    with pytest.raises(InvalidInput, match=why):
        unpack(line + pack(SNAPSHOT, "c/n1").partition(b"\n")[2], "c/n1")


def test_a_full_disk_is_reported_and_the_earlier_file_stays(tmp_path: Path) -> None:
    file = SnapshotFile(str(tmp_path), "c/n1")
    file.save(RECORDS, VERSIONS)
    (tmp_path / "discovery.new").symlink_to("/dev/full")
    with pytest.raises(Unavailable, match="No space left"):
        file.save((), {ADDRESS_TYPE: {}, AUTHORIZATION_TYPE: {}})
    assert file.load() == SNAPSHOT
    assert not os.path.lexists(tmp_path / "discovery.new")


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "discovery.snapshot").write_bytes(b"what")
    with pytest.raises(InvalidInput, match=r"discovery\.snapshot"):
        SnapshotFile(str(tmp_path), "c/n1").load()


def test_what_only_stands_in_for_something_refused_still_does_after_a_restart(tmp_path: Path) -> None:
    file = SnapshotFile(str(tmp_path / "state"), "c/n1")
    closed = (replace(rich_workload(), refused="junk"), replace(rich_service(), refused="junk"))
    versions = {ADDRESS_TYPE: dict.fromkeys((closed[0].uid, closed[1].key), STAND_IN_VERSION), AUTHORIZATION_TYPE: {}}
    file.save(closed, versions)
    found = file.load()
    assert found is not None
    assert [bool(one.refused) for one in found.records] == [True, True]  # type: ignore[union-attr]
    assert found.versions == versions
