"""`docs/datapath.md` lists what there is: every program with its hook, every map, every reason, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from ambient.agent.metrics import datapath_series
from ambient.datapath import sources
from ambient.datapath.hooks import HOOKS, NODE_HOOKS, Attach, Hook
from ambient.datapath.layout import Counter

PAGE = Path(__file__).parents[3] / "docs" / "datapath.md"
PLACE = {"pod": "the pod's eth0", "lo": "lo", "host": "the veth's host end", "netns": "the pod", "node": "the node"}
WAY = {
    Attach.TCX_EGRESS: "egress of ",
    Attach.TCX_INGRESS: "ingress of ",
    Attach.SK_LOOKUP: "SK_LOOKUP of ",
    Attach.SOCK_OPS: "SOCK_OPS of ",
}
CARRIED = {"HASH", "ARRAY", "PERCPU_HASH", "PERCPU_ARRAY", "LRU_HASH", "LPM_TRIE"}
IN_SOCKETS = {"SK_STORAGE"}
PUT_ONCE = {"listeners"}
OBJECT_MAP = re.compile(r"struct \w*\s*\{([^{}]*)\} (\w+) SEC\(\"\.maps\"\);")
BCC_MAP = re.compile(r"MAP_PIN\(\"(\w+)\"\)")


def tables(heading: str) -> list[list[list[str]]]:
    """The tables of a section: rows of cells, without their head."""
    section = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", PAGE.read_text(), re.DOTALL | re.MULTILINE)
    assert section is not None, heading
    found: list[list[list[str]]] = [[]]
    for line in section[1].splitlines():
        if line.startswith("|"):
            found[-1].append([cell.strip() for cell in line.strip("|").split(" | ")])
        elif found[-1]:
            found.append([])
    return [rows[2:] for rows in found if rows]


def named(text: str) -> set[str]:
    return set(re.findall(r"`([a-z_*]+)`", text))


def maps() -> Mapping[str, str]:
    """Name -> kind (BPF_MAP_TYPE_...), of every form of the programs."""
    found = {}
    for header in sorted((sources.source_directory() / "maps").glob("*.h")):
        for body, name in OBJECT_MAP.findall(header.read_text()):
            kind = re.search(r"BPF_MAP_TYPE_(\w+)", body)
            assert kind is not None, name
            found[name] = kind[1]
    return found


def test_both_spellings_of_the_headers_name_the_same_maps() -> None:
    text = "".join(header.read_text() for header in (sources.source_directory() / "maps").glob("*.h"))
    assert set(BCC_MAP.findall(text)) == maps().keys()


@pytest.mark.parametrize("hook", [*HOOKS, *NODE_HOOKS], ids=lambda hook: hook.program)
def test_every_program_is_there_with_its_hook(hook: Hook) -> None:
    programs, missing = tables("Programs")
    (row,) = [row for row in programs if row[0].startswith(f"`{hook.program}`")]
    assert f"{WAY[hook.attach]}{PLACE[hook.side]}" in row[0]
    assert all(row)
    (absent,) = [row for row in missing if row[0] == f"`{hook.program}`"]
    assert absent[1]


def test_no_program_is_there_that_is_not() -> None:
    programs, missing = tables("Programs")
    ours = {hook.program for hook in (*HOOKS, *NODE_HOOKS)}
    assert {name for row in programs for name in re.findall(r"^`(\w+)`", row[0])} == ours
    assert {name for row in missing for name in named(row[0])} == ours


def test_every_map_is_there_with_what_happens_when_an_entry_is_missing_or_stale_and_when_it_is_full() -> None:
    (rows,) = tables("Maps")
    assert sorted(name for row in rows for name in named(row[0])) == sorted(maps())
    for row in rows:
        assert len(row) == 5, row[0]
        assert all(row), f"{row[0]}: a cell is empty"


def test_every_map_is_there_with_what_becomes_of_it_in_another_version() -> None:
    """Once, and as its kind lets it."""
    (rows,) = tables("From one version to another")
    place: dict[str, str] = {}
    for cell, what in rows[:-1]:
        but = re.search(r"\(but (.*?)\)", cell)
        exceptions = named(but[1]) if but is not None else set()
        for pattern in named(cell) - exceptions:
            for name in maps():
                if re.fullmatch(pattern.replace("*", r"\w*"), name) and name not in exceptions:
                    assert name not in place, f"{name} is there twice"
                    place[name] = what
    assert place.keys() == maps().keys()
    for name, kind in maps().items():
        carried = kind in CARRIED and name not in {"deny_rows", "tallies_sheet", "reservations"}
        wanted = "entries are carried" if carried else "begin"
        if kind in IN_SOCKETS or name in PUT_ONCE:
            wanted = "refuses the load"
        assert place[name].startswith(wanted), f"{name}, {kind}: {place[name]}"


def test_every_reason_is_there_with_its_verdict() -> None:
    (rows,) = tables("Verdicts")
    counted = datapath_series(dict.fromkeys(Counter, 0))
    ours = sorted(f"{family}, {reason}" for family, reasons in counted.items() for reason in reasons)
    assert sorted(row[0] for row in rows) == ours
    programs = {hook.program for hook in (*HOOKS, *NODE_HOOKS)}
    for reason, who, verdict in rows:
        assert named(who), reason
        assert named(who) <= programs, reason
        assert verdict, reason


@pytest.mark.parametrize("hook", [*HOOKS, *NODE_HOOKS], ids=lambda hook: hook.program)
def test_a_reason_that_only_one_program_counts_is_said_to_be_its(hook: Hook) -> None:
    """By the programs' own files; what headers count is left out, as several programs share them."""
    (rows,) = tables("Verdicts")
    said = {row[0].partition(", ")[2]: named(row[1]) for row in rows}
    counted = datapath_series(dict.fromkeys(Counter, 0))
    text = (sources.source_directory() / f"{hook.program}.c").read_text()
    for counter in Counter:
        if re.search(rf"\bCOUNT_{counter.name}\b", text):
            only = datapath_series({counter: 0})
            ((family, reason),) = [(family, reason) for family, its in only.items() for reason in its]
            assert reason in counted[family]
            assert hook.program in said[reason], f"{family}, {reason}"
