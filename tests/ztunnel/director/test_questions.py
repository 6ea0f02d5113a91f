"""Questions of workers are answered once: at once, when it is known, or with a refusal that nobody keeps."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from ipaddress import ip_address
from typing import Any, cast

import pytest

from ambient.model.mesh import Mesh
from ambient.model.outcome import Refuse
from ambient.model.workload import ApplicationTunnel
from tests.support.builders import service, workload
from tests.support.waiting import eventually
from ztunnel.director.answers import Answers
from ztunnel.director.policies import PodInfo, Site
from ztunnel.director.questions import PATIENCE_S, Question, Questions
from ztunnel.ipc import messages as ipc
from ztunnel.ipc.authorities import AuthorityAnswer, AuthorityAsk

HOST = "web.default.svc.cluster.local"
AUTHORITY = AuthorityAsk(uid="uid-a", authority=f"{HOST}:80")
ROUTE = ipc.RouteAsk(uid="uid-a", ip=ip_address("10.96.0.1"), port=80)
PEER = ipc.PeerAsk(ip=ip_address("10.0.0.1"))
NAME = ipc.NameAsk(uid="uid-a", name=HOST, qtype="A")


class Told:
    """A worker: what it was told."""

    pid = 7

    def __init__(self) -> None:
        self.messages: list[object] = []

    def send(self, message: object, fds: tuple[int, ...] = ()) -> None:
        self.messages.append(message)


class World:
    """Pods uid-a, which takes every tunnel, and a service; `why` is what discovery says."""

    def __init__(self) -> None:
        mesh = Mesh()
        pod = workload("a", "10.0.0.1", uid="Kubernetes//Pod/default/a", application_tunnel=ApplicationTunnel())
        mesh.apply([pod, service("web", "10.96.0.1", (80, 8080))])
        answers = Answers(mesh, Site("n1", "Kubernetes", "cluster.local", ""), domain="cluster.local",
                          registry_only=False)  # fmt: skip
        answers.joined(Told.pid)
        self.why = ""
        pods = {"uid-a": PodInfo("uid-a", "a", "default", "a")}
        self.looks = 0
        self.questions = Questions(answers, cast("Any", pods), self._look)
        self.worker = Told()

    def _look(self, _ask: Question) -> str:
        self.looks += 1
        return self.why

    def ask(self, question: Question) -> list[object]:
        self.questions.ask(cast("Any", self.worker), question)
        return self.worker.messages


def scenario(body: Callable[[World], Awaitable[None]]) -> Callable[[], None]:
    async def run() -> None:
        await body(World())

    def test() -> None:
        asyncio.run(run())

    test.__name__ = body.__name__
    return test


@scenario
async def test_what_is_known_is_answered_at_once(world: World) -> None:
    assert world.ask(AUTHORITY) == [
        AuthorityAnswer(uid="uid-a", authority=f"{HOST}:80", port=8080, address=ip_address("10.96.0.1"))
    ]
    assert [type(message) for message in world.ask(PEER)] == [AuthorityAnswer, ipc.PeerAnswer]
    assert isinstance(world.ask(ROUTE)[-1], ipc.RouteAnswer)
    assert isinstance(world.ask(NAME)[-1], ipc.NameAnswer)


@scenario
async def test_a_question_waits_until_there_is_an_answer_and_is_answered_once(world: World) -> None:
    world.why = "not yet"
    assert world.ask(AUTHORITY) == []
    world.questions.again()
    assert world.worker.messages == []
    world.why = ""
    world.questions.again()
    world.questions.again()
    assert len(world.worker.messages) == 1


@pytest.mark.parametrize("question", [AUTHORITY, ROUTE, PEER, NAME])
def test_a_question_that_waited_too_long_gets_an_answer_that_nobody_keeps(question: Question) -> None:
    async def run() -> None:
        world = World()
        world.why = "not yet"
        world.ask(question)
        loop = asyncio.get_running_loop()
        real = loop.time
        loop.time = lambda: real() + PATIENCE_S + 1  # type: ignore[method-assign]
        world.questions.again()
        answer, forget = world.worker.messages
        assert isinstance(forget, ipc.Forget)
        assert forget.routes or forget.peers or forget.names or forget.authorities
        if isinstance(answer, ipc.RouteAnswer):
            assert isinstance(answer.plan, Refuse)
            assert answer.plan.detail == "not yet"
        if isinstance(answer, AuthorityAnswer):
            assert answer.port == 0

    asyncio.run(run())


@scenario
async def test_nobody_answers_a_worker_that_left(world: World) -> None:
    world.why = "not yet"
    world.ask(ROUTE)
    world.questions.left(cast("Any", world.worker))
    world.why = ""
    world.questions.again()
    assert world.worker.messages == []


@scenario
async def test_a_pod_that_is_not_here_gets_no_route(world: World) -> None:
    answer = world.ask(ipc.RouteAsk(uid="gone", ip=ip_address("10.96.0.1"), port=80))[0]
    assert isinstance(answer, ipc.RouteAnswer)
    assert isinstance(answer.plan, Refuse)
    assert "not on this node" in answer.plan.detail


def _routes(uid: str, count: int) -> list[ipc.RouteAsk]:
    return [ipc.RouteAsk(uid=uid, ip=ip_address("10.96.0.1"), port=port) for port in range(1, count + 1)]


def test_many_that_wait_in_vain_are_each_looked_at_a_few_times(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ztunnel.director.questions.PATIENCE_S", 0.3)

    async def run() -> None:
        world = World()
        world.why = "not yet"
        loop = asyncio.get_running_loop()
        real, later = loop.time, 0.0
        loop.time = lambda: real() + later  # type: ignore[method-assign]
        for question in _routes("uid-a", 500):
            world.ask(question)
            later += 0.0005
        await eventually(lambda: len(world.worker.messages) == 2 * 500)
        assert world.looks <= 3 * 500
        world.why = ""
        assert isinstance(world.ask(ROUTE)[-1], ipc.RouteAnswer), "and the next one waits for nothing"

    asyncio.run(run())


def test_one_pod_has_so_many_wait_and_leaves_room_for_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ztunnel.director.questions.MOST_HELD", 3)

    async def run() -> None:
        world = World()
        world.why = "not yet"
        for question in _routes("uid-a", 4):
            world.ask(question)
        refused = world.worker.messages[0]
        assert isinstance(refused, ipc.RouteAnswer)
        assert refused.port == 4
        assert isinstance(refused.plan, Refuse)
        assert "too many" in refused.plan.detail
        world.ask(ipc.RouteAsk(uid="uid-b", ip=ip_address("10.96.0.1"), port=80))
        world.ask(PEER)
        assert len(world.worker.messages) == 2, "these wait"
        world.why = ""
        world.questions.again()
        assert len(world.worker.messages) == 2 + 6
        world.why = "not yet"
        world.ask(ROUTE)
        assert len(world.worker.messages) == 2 + 6, "there is room again"

    asyncio.run(run())
