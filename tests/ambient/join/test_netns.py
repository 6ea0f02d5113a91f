"""What is refused of a namespace without any; with real ones: tests/lab/test_join.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from ambient.errors import Unavailable
from ambient.join.netns import address_of


def test_a_namespace_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="No such file"):
        address_of(tmp_path / "none")


def test_the_machines_own_namespace_is_refused() -> None:
    with pytest.raises(Unavailable, match="a workload needs one of its own"):
        address_of(Path("/proc/self/ns/net"))


def test_a_file_that_is_no_namespace_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(Unavailable):
        address_of(tmp_path / "file")
