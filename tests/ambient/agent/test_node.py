from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

from ambient.agent.apply import Applier
from ambient.agent.cni import Judged
from ambient.agent.cni_request import PodName
from ambient.agent.converge import Convergence
from ambient.agent.discovery import Policies
from ambient.agent.enrol import NotEnrolled, PodTarget, Rules
from ambient.agent.node import Starting, same_addresses
from ambient.kube.objects import Namespace, Pod, Record, Records, parse_object
from ambient.model.address import parse_ip
from tests.support.agent_lab import namespace, pod

IPS = (parse_ip("10.1.0.2"),)


def records(*raw: dict[str, Any]) -> Records:
    parsed = [parse_object(one, "test") for one in raw]
    return Records(1, {one.key: one for one in parsed})


def made(uid: str = "u1", **metadata: Any) -> dict[str, Any]:
    return pod("web", [], uid=uid, **metadata)


class Stored:
    """What the API server has."""

    def __init__(self, held: Records) -> None:
        self.held = held

    async def pod(self, namespace: str, name: str) -> Pod | None:
        return self.held.find(Pod, namespace, name)

    async def namespace(self, name: str) -> Namespace | None:
        return self.held.find(Namespace, "", name)


class NoPolicies:
    def apply_to(self, pod: Record) -> bool:
        return True


def starting(known: Records, stored: Records | None = None, replan: Callable[[], None] = lambda: None) -> Starting:
    return Starting(
        Rules(node="n1"),
        Stored(stored or known),
        cast(Policies, NoPolicies()),
        cast(Convergence, None),
        cast(Applier, None),
        lambda: known,
        replan,
        dict,
        lambda _namespace, _account: False,
        dict,
    )


def test_a_pod_is_judged_with_the_addresses_of_its_sandbox() -> None:
    judged = starting(records(namespace("shop", "ambient"), made())).judge(PodName("shop", "web", "u1"), IPS)
    assert judged is not None
    assert isinstance(judged.verdict, PodTarget)
    assert (judged.uid, judged.verdict.addresses) == ("u1", IPS)


def test_the_same_name_under_another_uid_is_another_pod() -> None:
    known = starting(records(namespace("shop", "ambient"), made()))
    assert known.judge(PodName("shop", "web", "u0"), IPS) is None
    assert known.judge(PodName("shop", "other", "u1"), IPS) is None


def test_a_runtime_that_tells_no_uid_is_answered_by_name() -> None:
    assert starting(records(made())).judge(PodName("shop", "web", ""), IPS) == Judged("u1", NotEnrolled.NOT_LABELLED)


def test_a_static_pod_is_known_by_its_hash() -> None:
    static = made(annotations={"kubernetes.io/config.hash": "0123"})
    judged = starting(records(namespace("shop", "ambient"), static)).judge(PodName("shop", "web", "0123"), IPS)
    assert judged is not None
    assert judged.uid == "u1"
    assert isinstance(judged.verdict, PodTarget)


def test_afresh_is_what_is_stored_not_what_is_known() -> None:
    both = starting(records(namespace("shop"), made()), records(namespace("shop", "ambient"), made()))
    name = PodName("shop", "web", "u1")
    assert both.judge(name, IPS) == Judged("u1", NotEnrolled.NOT_LABELLED)
    judged = asyncio.run(both.judge_afresh(name, IPS))
    assert judged is not None
    assert isinstance(judged.verdict, PodTarget)


def test_whoever_waits_is_woken_by_the_next_move_and_not_by_the_last() -> None:
    async def run() -> None:
        node = starting(records())
        node.note_moved()
        waiting = asyncio.create_task(node.moved())
        await asyncio.sleep(0)
        assert not waiting.done()
        node.note_moved()
        await asyncio.wait_for(waiting, 5)

    asyncio.run(run())


def test_nobody_is_answered_before_the_objects_were_read() -> None:
    async def run() -> None:
        node = starting(records())
        waiting = asyncio.create_task(node.ready())
        await asyncio.sleep(0)
        assert not waiting.done()
        node.note_read()
        await asyncio.wait_for(waiting, 5)

    asyncio.run(run())


def test_the_order_of_a_pods_addresses_is_its_statuss_once_they_are_the_same() -> None:
    four, six, other = parse_ip("10.1.0.2"), parse_ip("fd00::2"), parse_ip("10.1.0.3")
    shown = {
        uid: parse_object(pod("web", ips, uid=uid), "t")
        for uid, ips in (("u1", [str(six), str(four)]), ("u2", [str(other)]))
    }
    pods = {uid: one for uid, one in shown.items() if isinstance(one, Pod)}
    given = {"u1": (four, six), "u2": (four,), "u3": (four,)}
    assert same_addresses(given, pods) == {"u1": (six, four), "u2": (four,), "u3": (four,)}
