"""What is missing on the node, and what nobody owns."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from ambient.agent.apply import row_of
from ambient.agent.enrol import Capture
from ambient.agent.journal import Entry, Step
from ambient.agent.sweep import Findings, compare
from ambient.datapath.layout import FailMode, Flag, PodRow
from tests.support.agent_fakes import ADDRESSES, target

ENTRY = Entry(pod=target(), boot="b", netns=1, step=Step.ANNOTATE, epoch=3, host_ifindex=42)
ROW = row_of(Capture(), 3, 42)
GOOD = dict.fromkeys(ADDRESSES, ROW)
STRAY = ip_address("10.7.7.7")


def look(**changes: Any) -> Findings:
    given: dict[str, Any] = {
        "entries": [ENTRY],
        "tracked": [],
        "enrolled": ["uid-web"],
        "attached": {"uid-web": True},
        "rows": GOOD,
    }
    return compare(**{**given, **changes})


def test_a_whole_pod_gives_no_finding() -> None:
    assert not look()


@pytest.mark.parametrize(
    ("given", "finding"),
    [
        ({"attached": {"uid-web": False}}, Findings(loose=("uid-web",))),
        ({"attached": {}}, Findings(loose=("uid-web",))),
        ({"rows": {ADDRESSES[0]: ROW}}, Findings(wrong_rows=("uid-web",))),
        ({"rows": {**GOOD, ADDRESSES[1]: replace(ROW, flags=Flag(0))}}, Findings(wrong_rows=("uid-web",))),
        ({"rows": {**GOOD, ADDRESSES[0]: replace(ROW, fail_in=FailMode.OPEN)}}, Findings(wrong_rows=("uid-web",))),
        ({"rows": {**GOOD, ADDRESSES[0]: replace(ROW, host_ifindex=0)}}, Findings(wrong_rows=("uid-web",))),
        ({"attached": {"uid-web": True, "uid-old": False}}, Findings(orphans=("uid-old",))),
        ({"rows": {**GOOD, STRAY: PodRow()}}, Findings(stray_rows=(STRAY,))),
    ],
)
def test_each_fault_is_found(given: dict[str, Any], finding: Findings) -> None:
    assert look(**given) == finding


def test_a_pod_on_its_way_in_or_out_is_left_alone() -> None:
    assert not look(enrolled=[], attached={"uid-web": False}, rows={})


def test_a_pod_on_its_way_in_without_an_entry_yet_owns_what_it_has() -> None:
    assert not look(entries=[], tracked=[ENTRY.pod], enrolled=[])
    assert look(entries=[], tracked=[], enrolled=[]) == Findings(orphans=("uid-web",), stray_rows=ADDRESSES)


def test_open_is_put_back_only_where_it_was_asked_for() -> None:
    row = row_of(Capture(fail_open=True), 1)
    assert (row.fail_in, row.fail_out) == (FailMode.OPEN, FailMode.OPEN)
    assert (row_of(Capture(), 1).fail_in, row_of(Capture(), 1).fail_out) == (FailMode.CLOSED, FailMode.CLOSED)
