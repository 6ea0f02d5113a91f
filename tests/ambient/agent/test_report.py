from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from ambient.agent.converge import State, Tracked
from ambient.agent.enrol import MODE_LABEL, NotEnrolled
from ambient.agent.report import REPAIRED, REPEAT_S, Report, find_problems, remove_taint, uncertified
from ambient.kube.api.client import ApiClient
from ambient.kube.objects import Pod, parse_object
from tests.support.agent_fakes import target
from tests.support.agent_lab import pod
from tests.support.kube_api import Answer, FakeApi, status_body

TAINT = "ambient.mesh/agent-not-ready"
EVENTS = "/api/v1/namespaces/shop/events"


def record() -> Pod:
    made = parse_object(pod("web", ["10.0.0.5"], uid="u1"), "test")
    assert isinstance(made, Pod)
    return made


class Clock:
    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


def reporting(work: Callable[[FakeApi, Report, Clock], Awaitable[None]], taint: str = TAINT) -> None:
    async def run() -> None:
        async with FakeApi() as api, ApiClient(api.access(), timeout_s=5) as client:
            clock = Clock()
            await work(api, Report(client, "n1", taint, clock), clock)

    asyncio.run(run())


def events(api: FakeApi) -> list[tuple[str, str, int]]:
    """(reason, message, count) of each event that was made."""
    made = [
        body
        for (method, path, _), body in zip(api.requests, api.bodies, strict=True)
        if (method, path) == ("POST", EVENTS)
    ]
    return [(body["reason"], body["message"], body["count"]) for body in made]


def test_each_repair_of_a_pod_is_told_and_counted() -> None:
    async def work(api: FakeApi, report: Report, _: Clock) -> None:
        for _time in range(2):
            await report.repaired(record(), "a program was replaced; put back")
        assert events(api) == [(REPAIRED, "a program was replaced; put back", count) for count in (1, 2)]

    reporting(work)


def test_a_new_reason_is_an_event_on_the_pod_and_an_old_one_is_not() -> None:
    async def work(api: FakeApi, report: Report, _: Clock) -> None:
        pods = {"u1": record()}
        for why in ("no ztunnel", "no ztunnel", "no eBPF"):
            await report.tell({"u1": (record(), why)}, pods)
        assert events(api) == [("NotInMesh", "no ztunnel", 1), ("NotInMesh", "no eBPF", 1)]
        assert api.bodies[0]["involvedObject"]["uid"] == "u1"
        assert api.bodies[0]["type"] == "Warning"

    reporting(work)


def test_what_stays_true_is_told_again_and_counted() -> None:
    async def work(api: FakeApi, report: Report, clock: Clock) -> None:
        pods = {"u1": record()}
        await report.tell({"u1": (record(), "no ztunnel")}, pods)
        clock.now += REPEAT_S
        await report.tell({"u1": (record(), "no ztunnel")}, pods)
        assert api.bodies[-1]["count"] == 2

    reporting(work)


@pytest.mark.parametrize("there", [True, False])
def test_the_end_of_a_problem_is_told_while_the_pod_lives(there: bool) -> None:
    async def work(api: FakeApi, report: Report, _: Clock) -> None:
        await report.tell({"u1": (record(), "no ztunnel")}, {"u1": record()})
        await report.tell({}, {"u1": record()} if there else {})
        assert [reason for reason, _, _ in events(api)] == ["NotInMesh", *(["InMesh"] if there else [])]

    reporting(work)


def test_an_event_that_could_not_be_made_is_made_the_next_time() -> None:
    async def work(api: FakeApi, report: Report, _: Clock) -> None:
        api.say(EVENTS, Answer(503, status_body(503, "ServiceUnavailable", "later")))
        for _ in range(3):
            await report.tell({"u1": (record(), "no ztunnel")}, {"u1": record()})
        assert len(events(api)) == 2

    reporting(work)


def test_a_namespace_that_goes_is_no_trouble() -> None:
    async def work(api: FakeApi, report: Report, _: Clock) -> None:
        api.say(EVENTS, Answer(404, status_body(404, "NotFound", "no such namespace")))
        for _ in range(2):
            await report.tell({"u1": (record(), "no ztunnel")}, {"u1": record()})
        assert len(events(api)) == 1

    reporting(work)


def node(*taints: dict[str, str]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}, "spec": {"taints": list(taints)}}


OURS = {"key": TAINT, "effect": "NoSchedule"}
THEIRS = {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}


@pytest.mark.parametrize(
    ("before", "after"),
    [([OURS, THEIRS, {**OURS, "effect": "NoExecute"}], [THEIRS]), ([THEIRS], [THEIRS]), ([OURS], None)],
)
def test_only_the_taint_of_that_key_goes(before: list[dict[str, str]], after: list[dict[str, str]] | None) -> None:
    async def work(api: FakeApi, report: Report, _: Clock) -> None:
        api.put(node(*before))
        await report.open_node()
        stored = api.stored("Node", "n1")
        assert stored is not None
        assert stored["spec"].get("taints") == after

    reporting(work)


def test_the_taint_is_taken_off_once_and_not_fought_over() -> None:
    async def work(api: FakeApi, report: Report, _: Clock) -> None:
        api.put(node(OURS))
        await report.open_node()
        api.put(node(OURS))
        await report.open_node()
        stored = api.stored("Node", "n1")
        assert stored is not None
        assert stored["spec"]["taints"] == [OURS]

    reporting(work)


def test_without_a_key_no_node_is_read() -> None:
    async def work(api: FakeApi, report: Report, _: Clock) -> None:
        await report.open_node()
        assert api.requests == []

    reporting(work, taint="")


def test_a_node_that_cannot_be_changed_now_is_changed_later() -> None:
    async def work(api: FakeApi, report: Report, _: Clock) -> None:
        api.put(node(OURS))
        api.say("/api/v1/nodes/n1", Answer(503, status_body(503, "ServiceUnavailable", "later")))
        await report.open_node()
        await report.open_node()
        stored = api.stored("Node", "n1")
        assert stored is not None
        assert "taints" not in stored["spec"]

    reporting(work)


def test_a_change_of_somebody_else_in_between_is_not_lost() -> None:
    async def run() -> None:
        async with FakeApi() as api, ApiClient(api.access(), timeout_s=5) as client:
            api.put(node(OURS))
            first = api.stored("Node", "n1")
            assert first is not None
            stale = dict(first)
            api.put(node(OURS, THEIRS))

            api.say("/api/v1/nodes/n1", Answer(200, json.dumps(stale).encode()))
            await remove_taint(client, "n1", TAINT)
            stored = api.stored("Node", "n1")
            assert stored is not None
            assert stored["spec"]["taints"] == [THEIRS]

    asyncio.run(run())


def test_who_should_be_in_and_is_not_is_found_after_a_while_with_the_reason() -> None:
    async def run() -> None:
        late = asyncio.get_running_loop().time() - 60
        pods = {}
        for uid, mode in (("u1", ""), ("u2", ""), ("u3", ""), ("u4", "ambient"), ("u5", ""), ("u6", ""), ("u7", "")):
            made = parse_object(pod(uid, ["10.0.0.5"], uid=uid, labels={MODE_LABEL: mode} if mode else {}), "test")
            assert isinstance(made, Pod)
            pods[uid] = made
        tracked = {
            "u1": Tracked(target(), State.WAITING, problem="no eBPF", since=late),
            "u2": Tracked(target(), State.WAITING, since=asyncio.get_running_loop().time()),
            "u3": Tracked(target(), State.WAITING, since=late),
            "u6": Tracked(target(), State.ENROLLED, since=late),
            "u7": Tracked(target(), State.ENROLLED, since=late),
        }
        out = dict.fromkeys(("u4", "u5"), NotEnrolled.HOST_NETWORK)
        found = find_problems(pods, tracked, out, {"u3": "no port 15001"}, lambda uid: uid != "u6")
        assert {uid: why for uid, (_, why) in found.items()} == {
            "u1": "no eBPF",
            "u3": "no ztunnel serves it (no port 15001); look at the pod of daemonset ztunnel on this node",
            "u4": "uses-the-host-network",
            "u6": uncertified(pods["u6"].service_account),
        }

    asyncio.run(run())
