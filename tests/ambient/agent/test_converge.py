"""One task per pod: order, patience, and a wish that replaces the one before it."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from ambient.agent.apply import Applier
from ambient.agent.converge import GIVE_UP_WAITING_S, Convergence, State
from ambient.agent.enrol import Capture, Enrol, Gone, Held, NotEnrolled, Release, UpdateRow
from ambient.datapath.layout import Flag
from ambient.errors import KernelError
from tests.support.agent_fakes import ADDRESSES, Node, target, until


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(tmp_path / "pods")
    yield made
    made.close()


class Moves:
    """A convergence over a fake node that counts its reports."""

    def __init__(self, node: Node, applier: Applier | None = None) -> None:
        self.count = 0
        self.convergence = Convergence(applier or node.applier, self._moved)

    def _moved(self) -> None:
        self.count += 1

    def state(self, name: str = "web") -> State | None:
        tracked = self.convergence.tracked.get(f"uid-{name}")
        return None if tracked is None else tracked.state


def test_a_wish_is_carried_out_and_counted_as_held_meanwhile(node: Node) -> None:
    async def body() -> None:
        moves = Moves(node)
        assert moves.convergence.settled()
        moves.convergence.act([Enrol(target())])
        assert moves.convergence.held() == {"uid-web": Held(target())}
        assert not moves.convergence.settled()
        await until(lambda: moves.state() is State.ENROLLED)
        assert moves.convergence.settled()
        assert moves.count == 1
        moves.convergence.act([Release("uid-web", NotEnrolled.NOT_LABELLED)])
        assert moves.convergence.held() == {"uid-web": Held(target(), releasing=True)}
        assert not moves.convergence.settled(), "nothing was done yet"
        await until(moves.convergence.settled)
        await until(lambda: moves.state() is None)
        assert node.kernel.untouched

    asyncio.run(body())


def test_a_pod_that_drains_is_settled_once_new_connections_go_directly(node: Node) -> None:
    async def body() -> None:
        moves = Moves(node)
        moves.convergence.act([Enrol(target())])
        await until(lambda: moves.state() is State.ENROLLED)
        node.kernel.proxied_connections = 1
        moves.convergence.act([Release("uid-web", NotEnrolled.NOT_LABELLED)])
        await until(moves.convergence.settled)
        assert moves.state() is State.RELEASING
        assert node.said["uid-web"] is None
        await moves.convergence.close()

    asyncio.run(body())


def test_what_fails_is_tried_again_until_it_works(node: Node) -> None:
    async def body() -> None:
        moves = Moves(node)
        node.kernel.fail["attach_pod"] = KernelError("busy")
        moves.convergence.act([Enrol(target())])
        await until(lambda: node.kernel.calls.count("attach_pod") == 3)
        assert moves.convergence.tracked["uid-web"].problem == "step ATTACH: busy"
        assert not moves.convergence.settled()
        node.kernel.fail.clear()
        await until(lambda: moves.state() is State.ENROLLED)
        assert moves.convergence.tracked["uid-web"].problem == ""

    asyncio.run(body())


def test_an_unexpected_fault_with_one_pod_leaves_the_others_alone(node: Node) -> None:
    async def body() -> None:
        moves = Moves(node)
        node.kernel.namespaces["db"] = 9
        node.kernel.fail["record_older"] = ZeroDivisionError("a bug")
        moves.convergence.act([Enrol(target())])
        await until(lambda: moves.convergence.tracked["uid-web"].problem)
        node.kernel.fail.clear()
        moves.convergence.act([Enrol(target("db", addresses=ADDRESSES))])
        await until(lambda: moves.state("db") is State.ENROLLED)
        await moves.convergence.close()

    asyncio.run(body())


def test_a_pod_that_fails_for_long_no_longer_holds_up_the_rest(node: Node) -> None:
    async def body() -> None:
        moves = Moves(node)
        node.kernel.fail["attach_pod"] = KernelError("busy")
        moves.convergence.act([Enrol(target())])
        await until(lambda: moves.convergence.tracked["uid-web"].failing_since is not None)
        assert not moves.convergence.settled()
        moves.convergence.tracked["uid-web"].failing_since = asyncio.get_running_loop().time() - GIVE_UP_WAITING_S - 1
        assert moves.convergence.settled()
        await moves.convergence.close()

    asyncio.run(body())


def test_a_new_wish_ends_the_one_that_waits(node: Node) -> None:
    async def body() -> None:
        node.proxies.silent = True
        moves = Moves(node)
        moves.convergence.act([Enrol(target())])
        await until(lambda: node.said == {"uid-web": "pending"})
        moves.convergence.act([Gone("uid-web", "was-deleted")])
        assert moves.convergence.held() == {}
        await until(lambda: moves.state() is None)
        assert node.kernel.untouched
        assert node.proxies.pods == {}

    asyncio.run(body())


def test_a_pod_that_takes_over_an_address_waits_until_the_last_one_is_gone(node: Node) -> None:
    async def body() -> None:
        moves = Moves(node)
        node.kernel.namespaces["next"] = 9
        moves.convergence.act([Enrol(target())])
        await until(lambda: moves.state() is State.ENROLLED)
        node.kernel.fail["detach"] = KernelError("busy")
        moves.convergence.act([Gone("uid-web", "was-deleted"), Enrol(target("next"))])
        await until(lambda: node.kernel.calls.count("detach") == 3)
        assert node.kernel.inside == {"uid-web"}
        assert moves.state("next") is State.WAITING
        node.kernel.fail.clear()
        await until(lambda: moves.state("next") is State.ENROLLED)
        assert node.kernel.inside == {"uid-next"}
        assert all(Flag.CAPTURE_OUT in row.flags for row in node.kernel.table.values())
        assert set(node.kernel.table) == set(ADDRESSES)

    asyncio.run(body())


def test_a_changed_row_of_an_enrolled_pod_is_written_without_enrolling_again(node: Node) -> None:
    async def body() -> None:
        moves = Moves(node)
        moves.convergence.act([Enrol(target())])
        await until(lambda: moves.state() is State.ENROLLED)
        node.kernel.calls.clear()
        moves.convergence.act([UpdateRow(target(capture=Capture(dns=False)))])
        await until(lambda: moves.state() is State.ENROLLED)
        assert set(node.kernel.calls) == {"put_rows"}

    asyncio.run(body())


def test_a_changed_row_of_a_pod_on_its_way_in_counts_from_the_start(node: Node) -> None:
    async def body() -> None:
        node.proxies.silent = True
        moves = Moves(node)
        moves.convergence.act([Enrol(target())])
        await until(lambda: node.said == {"uid-web": "pending"})
        node.proxies.silent = False
        moves.convergence.act([UpdateRow(target(capture=Capture(dns=False)))])
        await until(lambda: moves.state() is State.ENROLLED)
        assert all(Flag.DNS not in row.flags for row in node.kernel.table.values())
        assert node.kernel.captures

    asyncio.run(body())


def test_a_release_that_an_agent_before_us_began_goes_on(node: Node) -> None:
    async def body() -> None:
        await node.applier.enrol(target())
        node.journal.change("uid-web", releasing=True)
        moves = Moves(node)
        moves.convergence.adopt(target())
        assert moves.convergence.held() == {"uid-web": Held(target(), releasing=True)}
        moves.convergence.resume_releases()
        await until(lambda: moves.state() is None)
        assert node.kernel.untouched

    asyncio.run(body())


def test_an_adopted_pod_that_is_wished_for_is_not_released(node: Node) -> None:
    async def body() -> None:
        await node.applier.enrol(target())
        moves = Moves(node)
        moves.convergence.adopt(target())
        moves.convergence.act([Enrol(target())])
        moves.convergence.resume_releases()
        await until(lambda: moves.state() is State.ENROLLED)
        assert node.kernel.captures

    asyncio.run(body())


def test_closing_stops_everything_and_undoes_nothing(node: Node) -> None:
    async def body() -> None:
        node.proxies.silent = True
        moves = Moves(node)
        moves.convergence.act([Enrol(target())])
        await until(lambda: node.said == {"uid-web": "pending"})
        await moves.convergence.close()
        assert node.kernel.inside == {"uid-web"}

    asyncio.run(body())
