"""The journal: what is written is what is read, and what cannot be read is set aside."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ambient.agent.enrol import Capture
from ambient.agent.journal import Entry, Journal, OlderConnection, Step, decode, encode
from ambient.errors import InvalidInput
from tests.support.agent_fakes import target

ENTRY = Entry(
    pod=target(capture=Capture(inbound=False, dns=False, fail_open=True)),
    boot="b",
    netns=17,
    step=Step.ROW,
    epoch=3,
    undo={"accept_local": "0"},
    host_ifindex=9,
    releasing=True,
    since_unix=12.5,
    older=(OlderConnection(1 << 60, "10.0.0.5:80", "[fd00::1]:9", inbound=True),),
)


def test_an_entry_survives_a_restart_whole(tmp_path: Path) -> None:
    Journal(tmp_path).put(ENTRY)
    assert list(Journal(tmp_path)) == [ENTRY]
    assert Journal(tmp_path).get("uid-web") == ENTRY


def test_a_dropped_entry_is_gone_and_dropping_it_again_is_fine(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.put(ENTRY)
    journal.drop("uid-web")
    journal.drop("uid-web")
    assert list(Journal(tmp_path)) == []


def test_a_write_that_was_cut_off_leaves_the_entry_before_it(tmp_path: Path) -> None:
    Journal(tmp_path).put(ENTRY)
    (tmp_path / "uid-web.new").write_text(encode(replace(ENTRY, step=Step.ZDS))[:50])
    journal = Journal(tmp_path)
    assert list(journal) == [ENTRY]
    assert not (tmp_path / "uid-web.new").exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 2}', '{"version": 1}', encode(ENTRY).replace("7", "x")])
def test_what_cannot_be_read_is_set_aside_and_reported(tmp_path: Path, text: str) -> None:
    (tmp_path / "uid-x.json").write_text(text)
    journal = Journal(tmp_path)
    assert list(journal) == []
    assert "uid-x.json" in str(journal.unreadable["uid-x"])
    assert (tmp_path / "uid-x.unreadable").exists()


def test_an_unknown_field_is_refused() -> None:
    with pytest.raises(InvalidInput, match="surprise"):
        decode(encode(ENTRY).replace('"boot"', '"surprise": 1, "boot"'), "here")


@pytest.mark.parametrize("uid", ["", ".", "../etc", "a/b"])
def test_a_uid_never_leads_out_of_the_directory(tmp_path: Path, uid: str) -> None:
    with pytest.raises(InvalidInput):
        Journal(tmp_path).put(replace(ENTRY, pod=target(uid=uid)))
    assert list(tmp_path.iterdir()) == []


def test_epochs_are_never_shared(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    assert journal.next_epoch() == 1
    journal.put(ENTRY)
    assert journal.next_epoch() == 4
    journal.put(replace(ENTRY, epoch=0x7FFFFFFF))
    assert journal.next_epoch() == 1
