"""The CA folder: a root made when there is none, changes taken up, damage never."""

from __future__ import annotations

import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest

from ambient.ca.roots import make_root
from ambient.control.authority import CaFolder
from ambient.errors import InvalidInput


def folder(path: Path, *, create: bool = True) -> CaFolder:
    return CaFolder(path, trust_domain="cluster.local", create=create)


def test_an_empty_folder_gets_a_root_whose_key_only_its_owner_reads(tmp_path: Path) -> None:
    made = folder(tmp_path)
    assert stat.S_IMODE((tmp_path / "root-key.pem").stat().st_mode) == 0o600
    assert folder(tmp_path, create=False).authority.roots == made.authority.roots


def test_without_leave_no_root_is_made(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="is missing"):
        folder(tmp_path, create=False)
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_half_an_authority_is_not_filled_up(tmp_path: Path) -> None:
    (tmp_path / "root-cert.pem").write_text(make_root(datetime.now(UTC))[0])
    with pytest.raises(InvalidInput, match=r"root-key\.pem: is missing"):
        folder(tmp_path)


def test_nothing_new_is_no_change(tmp_path: Path) -> None:
    made = folder(tmp_path)
    assert not made.refresh()


def test_new_files_are_taken_up_once(tmp_path: Path) -> None:
    made = folder(tmp_path)
    certificate, key = make_root(datetime.now(UTC))
    (tmp_path / "root-cert.pem").write_text(certificate)
    (tmp_path / "root-key.pem").write_text(key)
    assert made.refresh()
    assert made.authority.roots == certificate
    assert not made.refresh()


def test_damage_leaves_the_old_authority_and_its_repair_is_noticed(tmp_path: Path) -> None:
    made = folder(tmp_path)
    before = made.authority
    key = (tmp_path / "root-key.pem").read_text()
    (tmp_path / "root-key.pem").write_text("rubbish")
    assert not made.refresh()
    assert made.authority is before
    (tmp_path / "root-key.pem").unlink()
    assert not made.refresh()
    (tmp_path / "root-key.pem").write_text(key)
    assert not made.refresh()
    assert made.authority.roots == before.roots


def test_touched_files_with_the_same_content_are_no_change(tmp_path: Path) -> None:
    made = folder(tmp_path)
    (tmp_path / "root-cert.pem").write_text((tmp_path / "root-cert.pem").read_text())
    assert not made.refresh()
