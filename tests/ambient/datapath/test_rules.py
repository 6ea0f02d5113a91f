"""The text of the rules: what captures, what is closed, and that a table says which rows it was made of."""

from __future__ import annotations

import re
from ipaddress import ip_address

import pytest

from ambient.datapath.layout import FailMode, Flag, PodRow
from ambient.datapath.rules import Group, node_rules, pod_rules, read, removal
from ambient.errors import InvalidInput

FOUR, SIX = ip_address("10.0.0.5"), ip_address("fd00::5")
FULL = Flag.CAPTURE_OUT | Flag.CAPTURE_IN | Flag.HBONE_IN | Flag.DNS
ROWS = {FOUR: PodRow(FULL, epoch=7, host_ifindex=3), SIX: PodRow(FULL, epoch=7, host_ifindex=3)}


def chain(rules: str, name: str) -> list[str]:
    found = re.search(rf"chain {name} \{{\n(.*?)\n\t\}}", rules, re.DOTALL)
    assert found is not None, name
    return [line.strip() for line in found[1].splitlines()]


def elements(rules: str, name: str) -> list[str]:
    found = re.search(rf"set {name} \{{ type \S+; ?(?:elements = \{{ (.*?) \}})? ?\}}", rules)
    assert found is not None, name
    return found[1].split(", ") if found[1] else []


def test_a_table_says_whose_it_is_and_which_rows_it_was_made_of() -> None:
    rows = {**ROWS, SIX: PodRow(Flag.HBONE_IN, FailMode.OPEN, FailMode.CLOSED, 9, 4)}
    written = read(pod_rules("owner", "uid-web", rows, ()))
    assert (written.owner, written.uid, written.rows) == ("owner", "uid-web", rows)


def test_a_table_of_somebody_else_is_not_read() -> None:
    with pytest.raises(InvalidInput, match="whose it is"):
        read('table inet ambient {\n\tcomment "mine"\n}\n')


def test_a_row_that_nobody_of_us_writes_is_no_row() -> None:
    listing = pod_rules("owner", "uid", ROWS, ()).replace('comment "row', 'comment "row 1 9 9 1 1" "', 1)
    with pytest.raises(InvalidInput, match="FailMode"):
        read(listing)


def test_every_flag_of_a_row_is_a_set_that_the_address_is_in_or_not() -> None:
    rows = {**ROWS, SIX: PodRow(Flag.HBONE_IN | Flag.CAPTURE_OUT)}
    rules = pod_rules("owner", "uid", rows, ())
    for name, four, six in (("out", True, True), ("in", True, False), ("hbone", True, True), ("dns", True, False)):
        assert elements(rules, f"{name}_v4") == ([str(FOUR)] if four else [])
        assert elements(rules, f"{name}_v6") == ([str(SIX)] if six else [])


def test_what_is_looped_and_finds_no_listener_is_dropped_last() -> None:
    rules = pod_rules("owner", "uid", ROWS, ())
    assert chain(rules, "looped")[-1].endswith("== syn drop")
    assert chain(rules, "opened")[-1] == "drop"
    assert chain(rules, "opening")[-1] == "drop"
    assert 'oifname "eth0" meta mark 0x53a drop' in chain(rules, "guard")


def test_the_mark_counts_for_groups_that_are_named_and_for_everybody_only_where_none_can_be() -> None:
    named = pod_rules("owner", "uid", ROWS, [Group(2, "node/ztunnel"), Group(3, "a/b/c")])
    assert chain(named, "marked") == [
        'socket cgroupv2 level 2 "node/ztunnel" goto ztunnels',
        'socket cgroupv2 level 3 "a/b/c" goto ztunnels',
    ]
    assert "chain marked {\n\t}" in pod_rules("owner", "uid", ROWS, ())
    assert chain(pod_rules("owner", "uid", ROWS, None), "marked") == ["goto ztunnels"]


def test_the_node_notes_probes_of_named_groups_and_drops_whoever_borrows_their_address() -> None:
    rules = node_rules("owner", [FOUR, SIX], [Group(1, "kubelet")])
    noting = [line for line in chain(rules, "output") if "update" in line]
    assert len(noting) == 2
    assert all('socket cgroupv2 level 1 "kubelet"' in line for line in noting)
    assert [line for line in chain(node_rules("owner", [FOUR], ()), "output") if "update" in line] == []
    assert sum("update" in line for line in chain(node_rules("owner", [FOUR], None), "output")) == 2
    assert sum(line.endswith("drop") for line in chain(rules, "prerouting")) == 2


def test_a_table_takes_the_place_of_the_one_before_in_the_same_transaction() -> None:
    for rules in (pod_rules("owner", "uid", ROWS, ()), node_rules("owner", (), None)):
        assert rules.startswith(removal())


def test_a_group_whose_path_would_end_the_quotation_is_refused() -> None:
    with pytest.raises(InvalidInput, match="control group"):
        pod_rules("owner", "uid", ROWS, [Group(1, 'a" accept #')])
