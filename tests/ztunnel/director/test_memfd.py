"""Secrets in memory files: sealed against every change, and nothing else is taken for one."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from ambient.errors import InvalidInput
from ztunnel.director.memfd import LARGEST, content, sealed


def test_what_was_sealed_can_be_read_and_not_changed() -> None:
    fd = sealed("t", b"secret" * 1000)
    try:
        assert content(fd) == b"secret" * 1000
        changes: list[Callable[[], object]] = [
            lambda: os.pwrite(fd, b"x", 0),
            lambda: os.ftruncate(fd, 1),
            lambda: os.ftruncate(fd, 10_000),
        ]
        for change in changes:
            with pytest.raises(PermissionError):
                change()
        assert not os.get_inheritable(fd)
    finally:
        os.close(fd)


def test_an_unsealed_or_ordinary_or_huge_file_is_refused(tmp_path: Path) -> None:
    loose = os.memfd_create("t", os.MFD_ALLOW_SEALING)
    plain = os.open(tmp_path / "f", os.O_RDWR | os.O_CREAT)
    huge = sealed("t", b"x" * (LARGEST + 1))
    for fd in (loose, plain, huge):
        with pytest.raises(InvalidInput):
            content(fd)
        os.close(fd)
