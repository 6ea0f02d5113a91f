from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ambient.ca.ticket import read_session
from ambient.errors import InvalidInput
from ambient.join.member import FILE, Member, forget, load
from tests.support.machine import ANSWER, TICKET, member


def test_a_membership_lasts_on_disk_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    state = tmp_path / "state"
    assert load(state) is None
    member().save(state)
    assert load(state) == member()
    assert (state / FILE).stat().st_mode & 0o777 == 0o600
    forget(state)
    forget(state)
    assert load(state) is None


def test_each_process_has_a_token_of_its_own() -> None:
    assert read_session(member().token("agent")) == ("agent", "shop", "ledger-192-0-2-7", ANSWER["session"])


@pytest.mark.parametrize("change", [{"entry": None}, {"probe": 3}, {"beatSeconds": "soon"}])
def test_an_answer_that_lacks_something_is_refused(change: dict[str, Any]) -> None:
    answer = {key: value for key, value in {**ANSWER, **change}.items() if value is not None}
    with pytest.raises(InvalidInput, match="answer to the join"):
        Member.of(TICKET, "192.0.2.7", answer)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"control": 1}'])
def test_a_broken_file_is_refused_by_name(tmp_path: Path, text: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(InvalidInput, match=FILE):
        load(tmp_path)
