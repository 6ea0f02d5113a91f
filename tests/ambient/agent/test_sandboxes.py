from __future__ import annotations

from pathlib import Path

import pytest

from ambient.agent.sandboxes import Sandbox, Sandboxes
from ambient.errors import InvalidInput
from ambient.model.address import parse_ip

ONE = Sandbox("c1", "/run/netns/x", (parse_ip("10.1.0.2"), parse_ip("fd00::2")))


def test_the_next_agent_knows_what_this_one_was_told(tmp_path: Path) -> None:
    Sandboxes(tmp_path).put("u1", ONE)
    later = Sandboxes(tmp_path)
    assert later.get("u1") == ONE
    assert later.addresses() == {"u1": ONE.addresses}


def test_an_end_lasts_until_another_sandbox_starts(tmp_path: Path) -> None:
    sandboxes = Sandboxes(tmp_path)
    sandboxes.put("u1", ONE)
    sandboxes.end("u1")
    assert (sandboxes.get("u1"), sandboxes.ended) == (None, {"u1"})
    sandboxes.put("u1", ONE)
    assert (sandboxes.get("u1"), sandboxes.ended) == (ONE, set())


def test_pods_that_are_gone_are_forgotten_on_disk_too(tmp_path: Path) -> None:
    sandboxes = Sandboxes(tmp_path)
    sandboxes.put("u1", ONE)
    sandboxes.put("u2", ONE)
    sandboxes.end("u3")
    sandboxes.keep_only({"u2"})
    assert set(Sandboxes(tmp_path).addresses()) == {"u2"}
    assert sandboxes.ended == set()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"container": "c", "netns": "/x", "addresses": ["no"]}'])
def test_a_file_that_cannot_be_read_is_dropped(tmp_path: Path, text: str) -> None:
    (tmp_path / "u1.json").write_text(text)
    assert Sandboxes(tmp_path).get("u1") is None
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("uid", ["", "../x", ".hidden"])
def test_a_uid_that_leads_elsewhere_is_refused(tmp_path: Path, uid: str) -> None:
    with pytest.raises(InvalidInput):
        Sandboxes(tmp_path).put(uid, ONE)
