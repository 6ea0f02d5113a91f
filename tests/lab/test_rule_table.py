"""A table of rules is known as it was written, whoever else writes in its namespace at the same moment."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable, Iterator
from ipaddress import ip_address

import pytest

from ambient.agent.rule_table import RuleTable
from ambient.datapath import nft
from ambient.datapath.layout import PodRow
from ambient.datapath.rules import TABLE, pod_rules
from ambient.errors import KernelError
from tests.support.capture_bench import FULL
from tests.support.waiting import until

RULES = pod_rules("us", "uid", {ip_address("10.213.1.2"): PodRow(FULL)}, None)
OTHERS = "table inet stranger { chain output { type filter hook output priority 0; accept; }; }\n"
EMPTIED = f"flush chain inet {TABLE} output\n"


@pytest.fixture
def netns() -> Iterator[int]:
    """A network namespace of its own."""
    node = os.stat("/proc/self/ns/net").st_ino
    with subprocess.Popen(("unshare", "--net", "sleep", "600")) as own:
        until(lambda: os.stat(f"/proc/{own.pid}/ns/net").st_ino != node, "a namespace of its own")
        fd = os.open(f"/proc/{own.pid}/ns/net", os.O_RDONLY)
        yield fd
        os.close(fd)
        own.kill()


def third_party(does: str, times: int) -> tuple[Callable[[int, str], None], list[int]]:
    """In place of `nft.put`: who waits for the mesh's transactions, and answers so many of them at once."""
    done: list[int] = []

    def put(fd: int, rules: str) -> None:
        nft.put(fd, rules)
        if len(done) < times:
            done.append(fd)
            nft.put(fd, does)

    return put, done


def test_a_table_that_somebody_changes_right_after_it_was_written_is_written_again(netns: int) -> None:
    right = RuleTable(netns)
    right.write(RULES)
    undisturbed = nft.listing(netns)
    put, done = third_party(EMPTIED, 2)
    table = RuleTable(netns, put)
    table.write(RULES)
    assert len(done) == 2
    assert nft.listing(netns) == undisturbed
    assert table.is_intact()


def test_who_does_not_stop_is_never_taken_for_right_and_the_next_writing_mends_it(netns: int) -> None:
    """As the sweep does it, which asks first."""
    put, done = third_party(EMPTIED, 7)
    table = RuleTable(netns, put)
    table.write(RULES)
    assert not table.is_intact()
    assert not table.is_intact(), "asking does not make it right"
    table.write(RULES)
    assert len(done) == 7
    assert table.is_intact()
    listing = nft.listing(netns)
    RuleTable(netns).write(RULES)
    assert nft.listing(netns) == listing


def test_what_others_write_for_themselves_is_no_change_of_ours(netns: int) -> None:
    put, _ = third_party(OTHERS, 1)
    table = RuleTable(netns, put)
    table.write(RULES)
    assert table.is_intact()
    nft.put(netns, "flush table inet stranger\n")
    assert table.is_intact()
    nft.put(netns, EMPTIED)
    assert not table.is_intact()


def test_a_table_that_is_deleted_right_after_it_was_written_is_an_error_and_in_doubt(netns: int) -> None:
    put, _ = third_party(f"delete table inet {TABLE}\n", 1)
    table = RuleTable(netns, put)
    with pytest.raises(KernelError, match="somebody takes it away"):
        table.write(RULES)
    assert not table.is_intact()


def test_rules_that_are_refused_leave_what_is_there_and_known(netns: int) -> None:
    table = RuleTable(netns)
    table.write(RULES)
    with pytest.raises(KernelError):
        table.write("table inet nonsense { chain")
    assert table.is_intact()
    again = RuleTable(netns)
    again.adopt()
    assert again.is_intact()
