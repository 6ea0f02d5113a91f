from __future__ import annotations

from pathlib import Path

from ambient.cli.env import Exit
from tests.support.cli import FakeMesh, ambient


def test_a_namespace_without_a_usable_name_is_a_slip() -> None:
    ran = ambient(FakeMesh(), "join", "--netns", "/run/netns/a b")
    assert ran.code == Exit.USAGE


def test_a_ticket_that_is_not_there_or_none_is_named(tmp_path: Path) -> None:
    ran = ambient(FakeMesh(), "join", "--netns", "x", "--ticket", str(tmp_path / "none"))
    assert ran.code == Exit.FAILURE
    assert "No such file" in ran.err
    (tmp_path / "ticket").write_text("ambient")
    ran = ambient(FakeMesh(), "join", "--netns", "x", "--ticket", str(tmp_path / "ticket"))
    assert "not a ticket as `ambient ticket create` prints it" in ran.err
