"""Steps of an enrolment: their order, what a failure undoes, and an agent that dies between any two of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from ambient.agent.enrol import Capture
from ambient.agent.journal import OlderConnection, Step
from ambient.datapath.layout import FailMode, Flag, PodRow
from ambient.errors import KernelError, MeshError, Unavailable
from ambient.model.address import IpAddress
from tests.support.agent_fakes import ADDRESSES, FakeKernel, Killed, Node, target, until

OLDER = OlderConnection(5, "10.0.0.5:80", "10.0.0.9:4000", inbound=True)
IN_POINTS = [f"{when} {step.name}" for step in Step for when in ("before", "after")]
OUT_POINTS = ["before undo ZDS", "before undo ATTACH", "before undo ROUTES", "before undo ROWS", "before forget"]
RELEASE_POINTS = ["before release ROW", "after release ROW", *OUT_POINTS]


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path / "pods")
    yield made
    made.close()


def fully_in(node: Node) -> None:
    assert node.kernel.captures
    assert {row.host_ifindex for row in node.kernel.table.values()} == {42}
    assert node.kernel.attached() == {"uid-web": True}
    assert node.kernel.prepared
    assert "uid-web" in node.proxies.pods
    assert node.said == {"uid-web": "enabled"}


def fully_out(node: Node) -> None:
    assert node.kernel.untouched
    assert node.proxies.pods == {}
    assert list(node.journal) == []
    assert node.said.get("uid-web") is None
    assert dict(node.applier.open) == {}


def kill_at(where: str) -> object:
    def checkpoint(uid: str, here: str) -> None:
        if here == where:
            raise Killed(where)

    return checkpoint


def test_a_pod_is_captured_only_when_everything_else_stands(node: Node) -> None:
    asyncio.run(node.applier.enrol(target()))
    fully_in(node)
    order = [name for name in node.kernel.calls if name in ("prepare", "attach_pod", "attach_host", "put_rows")]
    assert order == ["put_rows", "prepare", "attach_pod", "attach_host", "put_rows"]


def test_a_pod_that_no_ztunnel_serves_is_pending_and_passes_everything(node: Node) -> None:
    node.proxies.silent = True

    async def wait() -> None:
        task = asyncio.create_task(node.applier.enrol(target()))
        await until(lambda: node.said == {"uid-web": "pending"})
        assert {row.flags for row in node.kernel.table.values()} == {Flag(0)}
        assert {row.host_ifindex for row in node.kernel.table.values()} == {42}, "anybody may use its address"
        task.cancel()
        await asyncio.wait({task})
        await node.applier.take_out("uid-web")

    asyncio.run(wait())
    fully_out(node)


@pytest.mark.parametrize(
    "call",
    ["absent_addresses", "record_older", "put_rows", "observe", "prepare", "attach_pod", "host_ifindex", "attach_host"],
)
def test_a_step_that_fails_is_undone_with_all_before_it(node: Node, call: str) -> None:
    node.kernel.fail[call] = KernelError("no", call)
    with pytest.raises(KernelError):
        asyncio.run(node.applier.enrol(target()))
    fully_out(node)
    node.kernel.fail.clear()
    asyncio.run(node.applier.enrol(target()))
    fully_in(node)


def test_an_error_of_the_operating_system_is_undone_too(node: Node) -> None:
    node.kernel.fail["attach_pod"] = OSError(28, "No space left on device")
    with pytest.raises(KernelError, match="No space left"):
        asyncio.run(node.applier.enrol(target()))
    fully_out(node)


@pytest.mark.parametrize("where", IN_POINTS)
def test_an_agent_killed_while_enrolling_brings_the_pod_in_after_its_restart(node: Node, where: str) -> None:
    node.restart(kill_at(where))  # type: ignore[arg-type]
    with pytest.raises(Killed):
        asyncio.run(node.applier.enrol(target()))
    node.close()
    node.restart()
    asyncio.run(node.applier.enrol(target()))
    fully_in(node)


@pytest.mark.parametrize("where", IN_POINTS)
def test_an_agent_killed_while_enrolling_a_pod_that_goes_away_leaves_nothing(node: Node, where: str) -> None:
    node.restart(kill_at(where))  # type: ignore[arg-type]
    with pytest.raises(Killed):
        asyncio.run(node.applier.enrol(target()))
    node.close()
    node.restart()
    asyncio.run(node.applier.take_out("uid-web"))
    fully_out(node)


@pytest.mark.parametrize("where", RELEASE_POINTS)
def test_an_agent_killed_while_releasing_takes_the_pod_out_after_its_restart(node: Node, where: str) -> None:
    asyncio.run(node.applier.enrol(target()))
    node.close()
    node.restart(kill_at(where))  # type: ignore[arg-type]
    asyncio.run(_resume(node))
    with pytest.raises(Killed):
        asyncio.run(node.applier.release("uid-web"))
    node.close()
    node.restart()
    asyncio.run(_resume(node))
    asyncio.run(node.applier.release("uid-web"))
    fully_out(node)


@pytest.mark.parametrize("where", RELEASE_POINTS)
def test_an_agent_killed_while_releasing_brings_a_pod_back_that_is_labelled_again(node: Node, where: str) -> None:
    asyncio.run(node.applier.enrol(target()))
    node.close()
    node.restart(kill_at(where))  # type: ignore[arg-type]
    asyncio.run(_resume(node))
    with pytest.raises(Killed):
        asyncio.run(node.applier.release("uid-web"))
    node.close()
    node.restart()
    asyncio.run(_resume(node))
    asyncio.run(node.applier.enrol(target()))
    fully_in(node)


async def _resume(node: Node) -> None:
    for entry in node.journal:
        await node.applier.resume(entry)


def test_a_restarted_agent_never_lets_a_captured_pod_out_meanwhile(node: Node) -> None:
    asyncio.run(node.applier.enrol(target()))
    node.close()
    node.restart()
    before = dict(node.kernel.table)
    node.kernel.calls.clear()
    node.proxies.silent = True  # ztunnel is not back yet
    asyncio.run(_resume(node))
    asyncio.run(node.applier.enrol(target()))
    assert node.kernel.table == before
    assert "record_older" not in node.kernel.calls
    fully_in(node)


def test_a_captured_pod_stays_captured_when_a_repair_fails(node: Node) -> None:
    asyncio.run(node.applier.enrol(target()))
    node.kernel.fail["attach_pod"] = KernelError("no")
    with pytest.raises(KernelError):
        asyncio.run(node.applier.enrol(target()))
    assert node.kernel.captures


def test_a_pod_without_a_namespace_is_left_for_later(node: Node) -> None:
    node.kernel.namespaces.clear()
    with pytest.raises(Unavailable):
        asyncio.run(node.applier.enrol(target()))
    fully_out(node)


def test_a_pod_of_which_an_address_is_not_there_yet_is_left_for_later(node: Node) -> None:
    class Slow(FakeKernel):
        def absent_addresses(self, netns: object, addresses: object) -> list[object]:  # type: ignore[override]
            return [ip_address("10.0.0.5")]

    node.kernel = Slow()
    node.restart()
    with pytest.raises(Unavailable, match=r"10\.0\.0\.5"):
        asyncio.run(node.applier.enrol(target()))
    fully_out(node)


def test_a_pod_whose_namespace_was_made_again_starts_over(node: Node) -> None:
    asyncio.run(node.applier.enrol(target()))
    node.kernel.namespaces["web"] = 8
    node.kernel.prepared.clear()
    asyncio.run(node.applier.enrol(target()))
    fully_in(node)
    assert list(node.kernel.prepared) == [8]
    entry = node.journal.get("uid-web")
    assert entry is not None
    assert entry.netns == 8


def test_a_journal_of_another_boot_describes_nothing(node: Node) -> None:
    node.kernel.older = (OLDER,)
    asyncio.run(node.applier.enrol(target()))
    node.close()
    node.kernel = FakeKernel()
    node.restart(boot="later")
    asyncio.run(_resume(node))
    assert node.proxies.pods == {}
    asyncio.run(node.applier.enrol(target()))
    fully_in(node)
    entry = node.journal.get("uid-web")
    assert entry is not None
    assert entry.older == ()


def test_a_snapshot_keeps_a_pod_whose_namespace_cannot_be_opened(node: Node) -> None:
    asyncio.run(node.applier.enrol(target()))
    node.close()
    node.kernel.namespaces.clear()
    node.restart()
    asyncio.run(_resume(node))
    assert node.proxies.pods == {"uid-web": None}


def test_what_opened_between_the_first_look_and_the_capture_counts_as_older(node: Node) -> None:
    late = replace(OLDER, cookie=6, remote="10.0.0.9:4001")

    class Busy(FakeKernel):
        def record_older(self, netns: object, addresses: object) -> tuple[OlderConnection, ...]:  # type: ignore[override]
            return (late,) if self.captures else (OLDER,)

    node.kernel = Busy()
    node.restart()
    asyncio.run(node.applier.enrol(target()))
    entry = node.journal.get("uid-web")
    assert entry is not None
    assert {c.cookie for c in entry.older} == {5, 6}
    assert entry.since_unix == 1000.0


def test_rows_follow_what_is_wished_without_a_moment_without(node: Node) -> None:
    asyncio.run(node.applier.enrol(target()))
    node.kernel.calls.clear()
    asyncio.run(node.applier.update(target(capture=Capture(inbound=False, dns=False, fail_open=True))))
    assert "delete_row" not in node.kernel.calls
    row = node.kernel.table[ADDRESSES[0]]
    assert row.flags == Flag.CAPTURE_OUT | Flag.HBONE_IN
    assert (row.fail_in, row.fail_out) == (FailMode.OPEN, FailMode.OPEN)


def test_an_address_that_a_pod_no_longer_has_loses_its_row(node: Node) -> None:
    asyncio.run(node.applier.enrol(target()))
    asyncio.run(node.applier.update(target(addresses=ADDRESSES[:1])))
    assert list(node.kernel.table) == [ADDRESSES[0]]
    entry = node.journal.get("uid-web")
    assert entry is not None
    assert entry.pod.addresses == ADDRESSES[:1]


def test_a_pod_that_goes_leaves_the_row_of_the_pod_that_has_its_address_now(node: Node) -> None:
    asyncio.run(node.applier.enrol(target()))
    new = PodRow(Flag.CAPTURE_OUT, FailMode.CLOSED, FailMode.CLOSED, 99)
    node.kernel.table[ADDRESSES[0]] = new
    asyncio.run(node.applier.take_out("uid-web"))
    assert node.kernel.table == {ADDRESSES[0]: new}


def test_a_released_pod_waits_for_its_proxied_connections(node: Node) -> None:
    asyncio.run(node.applier.enrol(target()))
    node.kernel.proxied_connections = 3

    async def release() -> None:
        task = asyncio.create_task(node.applier.release("uid-web"))
        await until(lambda: "proxied" in node.kernel.calls)
        assert not task.done()
        assert {row.flags for row in node.kernel.table.values()} == {Flag.HBONE_IN}
        assert node.kernel.attached() == {"uid-web": True}
        assert node.said == {"uid-web": None}
        node.kernel.proxied_connections = 0
        await task

    asyncio.run(release())
    fully_out(node)


def test_a_pod_labelled_again_while_it_is_released_is_captured_again(node: Node) -> None:
    asyncio.run(node.applier.enrol(target()))
    node.kernel.proxied_connections = 3

    async def change_of_mind() -> None:
        task = asyncio.create_task(node.applier.release("uid-web"))
        await until(lambda: "proxied" in node.kernel.calls)
        task.cancel()
        await asyncio.wait({task})
        await node.applier.enrol(target())

    asyncio.run(change_of_mind())
    fully_in(node)
    entry = node.journal.get("uid-web")
    assert entry is not None
    assert not entry.releasing


def test_a_cancelled_step_is_finished_before_anything_else_is_done(node: Node) -> None:
    async def cancel_at_once() -> None:
        task = asyncio.create_task(node.applier.enrol(target()))
        await until(lambda: "prepare" in node.kernel.calls)
        task.cancel()
        await asyncio.wait({task})
        await node.applier.take_out("uid-web")

    asyncio.run(cancel_at_once())
    fully_out(node)


def test_taking_out_a_pod_that_is_not_there_is_fine(node: Node) -> None:
    asyncio.run(node.applier.take_out("uid-other"))
    fully_out(node)


def test_an_undo_that_fails_says_so_and_can_be_repeated(node: Node) -> None:
    asyncio.run(node.applier.enrol(target()))
    node.kernel.fail["detach"] = KernelError("busy")
    with pytest.raises(MeshError):
        asyncio.run(node.applier.take_out("uid-web"))
    assert node.journal.get("uid-web") is not None
    node.kernel.fail.clear()
    asyncio.run(node.applier.take_out("uid-web"))
    fully_out(node)


def test_a_pod_whose_rows_and_programs_were_taken_away_comes_back_without_a_moment_of_passing(node: Node) -> None:
    asyncio.run(node.applier.enrol(target()))
    node.kernel.table.clear()
    node.kernel.inside.clear()
    node.kernel.host.clear()
    node.restart()
    node.kernel.calls.clear()
    node.proxies.silent = True

    async def wait() -> None:
        task = asyncio.create_task(node.applier.enrol(target()))
        await until(lambda: node.kernel.attached() == {"uid-web": True} or task.done())
        assert node.kernel.captures, "closed, though no ztunnel has said that it serves the pod"
        task.cancel()
        await asyncio.wait({task})

    asyncio.run(wait())
    assert Flag(0) not in {row.flags for row in node.kernel.table.values()}


def test_a_captured_pod_whose_journal_is_lost_is_not_let_out_meanwhile(node: Node) -> None:
    asyncio.run(node.applier.enrol(target()))
    node.kernel.table = {ip: replace(row, epoch=9) for ip, row in node.kernel.table.items()}
    for path in node.directory.iterdir():
        path.write_text("{")
    node.close()
    node.restart()
    node.proxies.silent = True
    rows = node.kernel.table
    seen: list[Flag] = []
    put = node.kernel.put_rows

    def watched(uid: str, rows: Mapping[IpAddress, PodRow]) -> None:
        seen.extend(row.flags for row in rows.values())
        put(uid, rows)

    node.kernel.put_rows = watched  # type: ignore[method-assign]

    async def wait() -> None:
        task = asyncio.create_task(node.applier.enrol(target()))
        await until(lambda: node.said.get("uid-web") == "pending" or task.done())
        task.cancel()
        await asyncio.wait({task})

    asyncio.run(wait())
    assert seen
    assert all(Flag.CAPTURE_OUT in flags for flags in seen)
    assert {row.epoch for row in rows.values()} == {1}


def test_an_agent_that_died_between_the_rows_and_the_journal_writes_down_when_it_began(node: Node) -> None:
    asyncio.run(node.applier.enrol(target()))
    node.journal.change("uid-web", since_unix=0.0)
    asyncio.run(node.applier.enrol(target()))
    entry = node.journal.get("uid-web")
    assert entry is not None
    assert entry.since_unix == 1000.0
