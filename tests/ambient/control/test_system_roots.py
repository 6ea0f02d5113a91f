"""The authorities of a system: the file that is named, else the usual ones, else none."""

from __future__ import annotations

from pathlib import Path

import pytest

from ambient.control.system_roots import system_roots


def test_the_file_that_is_named_is_read_and_no_other(tmp_path: Path) -> None:
    file = tmp_path / "roots.pem"
    file.write_text("these")
    assert system_roots(file) == "these"
    with pytest.raises(OSError, match="missing"):
        system_roots(tmp_path / "missing")


def test_without_one_they_are_certificates_or_none() -> None:
    found = system_roots()
    assert not found or "-----BEGIN CERTIFICATE-----" in found
