"""Who may take the kernel path: both willing, the way straight, policy asked; anything else is the tunnel's."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass, field, replace

import pytest

from ambient.agent.converge import State, Tracked
from ambient.agent.same_node import LEASE_S, MOST_PER_POD, Right, SameNode, every
from ambient.datapath.direct import Call
from ambient.errors import KernelError
from ambient.model.address import Endpoint
from ambient.model.outcome import Denied, Passthrough, Reason
from ambient.model.workload import ApplicationTunnel, TunnelPreamble
from tests.support.direct import CALL, CLIENT, SERVER, FakeDirect, FakeKnowledge, pod


@dataclass
class Scene:
    tables: FakeDirect = field(default_factory=FakeDirect)
    knowledge: FakeKnowledge = field(default_factory=FakeKnowledge)
    pods: list[Tracked] = field(default_factory=lambda: [pod("client", CLIENT), pod("server", SERVER)])
    switched: int = 0
    changed: int = 0
    ready: bool = True

    def __post_init__(self) -> None:
        self.same_node = SameNode(
            self.tables, self.knowledge, lambda: self.pods, self._switch, self._change, lambda: self.ready
        )
        self.same_node.refresh()

    def _switch(self) -> None:
        self.switched += 1

    def _change(self) -> None:
        self.changed += 1

    def ask(self) -> bool:
        """Is the connection granted when a pod asks?"""
        self.tables.asked = [CALL]
        self.same_node.look()
        return CALL in self.tables.granted


def test_two_willing_pods_are_granted_what_policy_allows_by_both_identities() -> None:
    scene = Scene()
    assert scene.ask()
    assert scene.tables.granted == {CALL: CALL.dialled}
    (connection,) = scene.knowledge.judged
    assert (connection.source_ip, connection.destination_ip, connection.destination_port) == (CLIENT, SERVER, 80)
    assert str(connection.peer) == "spiffe://cluster.local/ns/shop/sa/client"


def test_nothing_happens_where_nobody_asks_for_it() -> None:
    scene = Scene(pods=[pod("client", CLIENT, direct=False), pod("server", SERVER, direct=False)])
    assert not scene.same_node.on
    assert not scene.ask()
    assert (scene.switched, scene.tables.lease_s, scene.tables.asked) == (0, 0.0, [CALL])


REFUSALS = {
    "the client is not willing": lambda s: s.pods.__setitem__(0, pod("client", CLIENT, direct=False)),
    "the server is not willing": lambda s: s.pods.__setitem__(1, pod("server", SERVER, direct=False)),
    "the server takes what comes in by itself": lambda s: setattr(
        s.pods[1], "pod", replace(s.pods[1].pod, capture=replace(s.pods[1].pod.capture, inbound=False))
    ),
    "the server is elsewhere": lambda s: s.pods.pop(1),
    "the server is on its way in": lambda s: setattr(s.pods[1], "state", State.WAITING),
    "the client is on its way out": lambda s: setattr(s.pods[0], "state", State.RELEASING),
    "policy denies": lambda s: setattr(s.knowledge, "verdict", Denied(Reason.DENIED_BY, "shop/no")),
    "a policy is missing": lambda s: setattr(s.knowledge, "verdict", Denied(Reason.POLICY_NOT_RECEIVED)),
    "it is not known who belongs in the mesh": lambda s: setattr(s, "ready", False),
    "nothing is known": lambda s: setattr(s.knowledge, "known", False),
    "the server is not who is expected": lambda s: setattr(
        s.knowledge, "expected", ("spiffe://cluster.local/ns/shop/sa/before",)
    ),
    "it is no straight way": lambda s: setattr(s.knowledge, "plan", Passthrough("whatever")),
    "the server is told who calls": lambda s: setattr(
        s.knowledge,
        "workload",
        replace(s.knowledge.workload, application_tunnel=ApplicationTunnel(TunnelPreamble.PROXY)),
    ),
}


@pytest.mark.parametrize("why", REFUSALS)
def test_in_doubt_it_is_the_tunnel(why: str) -> None:
    scene = Scene(pods=[*Scene().pods, pod("third", SERVER + 1)])
    REFUSALS[why](scene)
    scene.same_node.refresh()
    assert not scene.ask(), why


@pytest.mark.parametrize("why", REFUSALS)
def test_a_grant_goes_when_its_ground_goes(why: str) -> None:
    scene = Scene(pods=[*Scene().pods, pod("third", SERVER + 1)])
    assert scene.ask()
    REFUSALS[why](scene)
    scene.same_node.refresh()
    assert not scene.tables.granted, why
    assert scene.changed == 2


def test_a_port_of_ztunnel_is_not_reached_directly() -> None:
    scene = Scene()
    assert scene.same_node.judge(Call(CLIENT, Endpoint(SERVER, 15008))).right is Right.NO


def test_grants_count_on_only_while_discovery_is_current() -> None:
    scene = Scene()
    scene.same_node.look()
    assert scene.tables.lease_s == LEASE_S
    scene.knowledge.current = False
    scene.same_node.look()
    assert scene.tables.lease_s == 0


def test_a_pod_has_only_so_many_grants() -> None:
    scene = Scene()
    scene.tables.asked = [Call(CLIENT, Endpoint(SERVER, 20_000 + n)) for n in range(MOST_PER_POD + 5)]
    scene.same_node.look()
    assert len(scene.tables.granted) == MOST_PER_POD


def test_what_an_agent_before_granted_is_judged_anew() -> None:
    tables = FakeDirect(granted={CALL: CALL.dialled, Call(SERVER, Endpoint(SERVER + 1, 1)): CALL.dialled})
    scene = Scene(tables=tables, pods=[])
    scene.same_node.adopt()
    assert scene.same_node.on
    scene.pods[:] = Scene().pods
    scene.same_node.refresh()
    assert [*tables.granted] == [CALL]


def test_what_is_open_is_looked_after_by_an_agent_that_finds_no_grants_and_nobody_who_asks() -> None:
    """The agent before it had revoked them, as it never learned what policy says."""
    scene = Scene(pods=[])
    scene.tables.pass_by(at=1.0)
    scene.same_node.adopt()
    assert scene.same_node.on
    scene.same_node.refresh()
    assert (scene.switched, scene.changed) == (1, 1)


def test_a_grant_that_the_kernel_did_not_take_back_is_judged_again() -> None:
    scene = Scene()
    assert scene.ask()
    scene.knowledge.verdict = Denied(Reason.DENIED_BY, "shop/no")
    scene.tables.refuse_revoking = True
    scene.same_node.refresh()
    assert CALL in scene.tables.granted
    scene.tables.refuse_revoking = False
    scene.same_node.refresh()
    assert CALL not in scene.tables.granted


def test_an_agent_that_begins_cuts_nobody_before_it_knows_who_belongs_in_the_mesh() -> None:
    scene = Scene(pods=[], ready=False)
    assert scene.same_node.judge(CALL).right is Right.DOUBT
    scene.ready = True
    assert scene.same_node.judge(CALL).right is Right.NO


@pytest.mark.parametrize("error", [OSError("no"), ValueError("not foreseen"), KernelError("no", "nowhere")])
def test_whatever_fails_in_a_step_is_tried_again(error: Exception) -> None:
    async def run() -> None:
        woken, tries = asyncio.Event(), 0

        def step() -> None:
            nonlocal tries
            tries += 1
            woken.set()
            if tries < 3:
                raise error
            raise KeyboardInterrupt

        with contextlib.suppress(KeyboardInterrupt):
            await every(60, woken, step)
        assert tries == 3

    asyncio.run(run())


def test_steps_that_take_long_leave_the_loop_to_others_until_somebody_wakes_them() -> None:
    async def run() -> None:
        woken, taken, now = asyncio.Event(), 0, 0.0

        def step() -> None:
            nonlocal taken, now
            taken += 1
            now += 1_000

        task = asyncio.create_task(every(0, woken, step, clock=lambda: now))
        for _ in range(20):
            await asyncio.sleep(0)
        assert taken == 1
        woken.set()
        for _ in range(20):
            await asyncio.sleep(0)
        assert taken == 2
        task.cancel()

    asyncio.run(run())
