from __future__ import annotations

import asyncio
import os
import struct
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from ambient.agent import cni
from ambient.agent.cni import Judged, PodStarts
from ambient.agent.cni_request import Answer, PodName, Request
from ambient.agent.converge import State, Tracked
from ambient.agent.enrol import NotEnrolled, PodTarget
from ambient.agent.sandboxes import Sandbox, Sandboxes
from ambient.errors import MeshError, Unavailable
from ambient.model.address import parse_ip
from tests.support import cni as plugin
from tests.support.agent_fakes import until

ADDRESSES = (parse_ip("10.1.0.2"),)
TARGET = PodTarget(uid="u1", namespace="shop", name="web", service_account="a", addresses=ADDRESSES)
IN = Judged("u1", TARGET)
OUT = Judged("u1", NotEnrolled.NOT_LABELLED)


class FakeNode:
    """`known` and `stored` are what the agent knows and what the API has; plans are carried out at once, or never."""

    def __init__(self, root: Path, sandboxes: Sandboxes) -> None:
        self.root = root
        self.sandboxes = sandboxes
        self.known: Judged | None = IN
        self.stored: Judged | MeshError | None = None
        self.asked = 0
        self.hangs = False
        self.serves = True
        self.uncertified: set[str] = set()
        self.pods: dict[str, Tracked] = {}
        self.netns: dict[str, str] = {}
        self.read = asyncio.Event()
        self.read.set()
        self.change = asyncio.Event()
        (root / "x").write_text("")
        (root / "y").write_text("")

    def note(self) -> None:
        self.change.set()
        self.change = asyncio.Event()

    async def ready(self) -> None:
        await self.read.wait()

    async def moved(self) -> None:
        await self.change.wait()

    def judge(self, pod: PodName, addresses: object) -> Judged | None:
        return self.known

    async def judge_afresh(self, pod: PodName, addresses: object) -> Judged | None:
        self.asked += 1
        if self.hangs:
            await asyncio.Event().wait()
        if isinstance(self.stored, MeshError):
            raise self.stored
        return self.stored

    def plan(self) -> None:
        for uid in self.sandboxes.ended & self.pods.keys():
            del self.pods[uid], self.netns[uid]
        for uid in self.sandboxes.addresses():
            self.pods.setdefault(uid, Tracked(TARGET, State.ENROLLED if self.serves else State.WAITING))
            sandbox = self.sandboxes.get(uid)
            assert sandbox is not None
            self.netns.setdefault(uid, sandbox.netns)

    def tracked(self, uid: str) -> Tracked | None:
        return self.pods.get(uid)

    def served(self, uid: str) -> bool:
        return uid not in self.uncertified

    def why(self, uid: str) -> str:
        tracked = self.pods.get(uid)
        return tracked.problem if tracked is not None and tracked.problem else "no ztunnel serves it"

    def netns_of(self, uid: str) -> tuple[int, int] | None:
        if uid not in self.netns:
            return None
        found = os.stat(f"{self.root}{self.netns[uid]}")
        return found.st_dev, found.st_ino


@pytest.fixture
def node(tmp_path: Path) -> FakeNode:
    return FakeNode(tmp_path, Sandboxes(tmp_path / "sandboxes"))


def request(command: str = "ADD", **changed: Any) -> Request:
    fields: dict[str, Any] = {
        "command": command,
        "container": "c1",
        "netns": "/x",
        "interface": "eth0",
        "pod": PodName("shop", "web", "u1"),
        "addresses": ADDRESSES,
        "timeout_s": 1.0,
    }
    return Request(**{**fields, **changed})


def starts(node: FakeNode) -> PodStarts:
    return PodStarts(node, node.sandboxes, frozenset({"kube-system"}), node.root)


def answered(node: FakeNode, *requests: Request) -> list[Answer]:
    async def run() -> list[Answer]:
        made = starts(node)
        return [await made.answer(one) for one in requests]

    return asyncio.run(run())


def test_a_pod_of_the_mesh_starts_when_it_is_captured(node: FakeNode) -> None:
    assert answered(node, request()) == [Answer(0)]
    assert node.sandboxes.get("u1") == Sandbox("c1", "/x", ADDRESSES)


def test_one_that_is_not_captured_in_time_is_held_and_let_go_of(node: FakeNode) -> None:
    node.serves = False
    (answer,) = answered(node, request())
    assert (answer.code, "no ztunnel serves it" in answer.message) == (11, True)
    assert node.sandboxes.ended == {"u1"}
    assert not node.pods


def test_one_that_ztunnel_has_no_certificate_for_is_held(node: FakeNode) -> None:
    node.uncertified = {"u1"}
    (answer,) = answered(node, request())
    assert answer.code == 11
    assert node.sandboxes.ended == {"u1"}


def test_the_reason_of_the_last_failure_is_told(node: FakeNode) -> None:
    node.serves = False
    node.plan()
    node.sandboxes.put("u1", Sandbox("c1", "/x", ADDRESSES))
    node.pods["u1"] = Tracked(TARGET, State.WAITING, problem="step ATTACH: no eBPF")
    node.netns["u1"] = "/x"
    (answer,) = answered(node, request())
    assert "step ATTACH: no eBPF" in answer.message


@pytest.mark.parametrize("verdict", [NotEnrolled.SIDECAR, NotEnrolled.OPTED_OUT, NotEnrolled.HOST_NETWORK])
def test_a_pod_outside_passes_without_a_question_to_the_api(node: FakeNode, verdict: NotEnrolled) -> None:
    node.known = Judged("u1", verdict)
    assert answered(node, request()) == [Answer(0)]
    assert node.asked == 0
    assert node.sandboxes.get("u1") is None


def test_not_labelled_is_believed_only_after_the_api_was_asked(node: FakeNode) -> None:
    node.known = node.stored = OUT
    assert answered(node, request()) == [Answer(0)]
    assert node.asked == 1


def test_a_pod_without_a_uid_is_not_taken_for_the_one_that_had_its_name_before(node: FakeNode) -> None:
    async def run() -> Answer:
        node.known, node.stored = Judged("u0", NotEnrolled.TERMINAL), IN
        adding = asyncio.create_task(starts(node).answer(request(pod=PodName("shop", "web", ""), timeout_s=30.0)))
        await until(lambda: node.asked > 0 or adding.done())
        assert not adding.done(), "an ended pod of this name was taken for it"
        node.known = IN
        node.note()
        return await adding

    assert asyncio.run(run()) == Answer(0)
    assert node.sandboxes.get("u1") is not None


def test_a_label_on_its_way_is_waited_for(node: FakeNode) -> None:
    node.known, node.stored = OUT, IN

    async def run() -> Answer:
        task = asyncio.create_task(starts(node).answer(request()))
        await until(lambda: node.asked)
        assert not task.done()
        node.known = IN
        node.note()
        return await task

    assert asyncio.run(run()) == Answer(0)
    assert "u1" in node.pods


def test_a_label_that_never_comes_holds_the_pod(node: FakeNode) -> None:
    node.known, node.stored = OUT, IN
    assert answered(node, request())[0].code == 11


@pytest.mark.parametrize("known", [OUT, None], ids=["known", "unknown"])
def test_with_the_api_away_the_known_pass_and_the_unknown_are_held(node: FakeNode, known: Judged | None) -> None:
    node.known, node.stored = known, Unavailable("Kubernetes API", "", "is away")
    (answer,) = answered(node, request())
    assert (answer.code, "is away" in answer.message) == ((0, False) if known else (11, True))


def test_an_api_server_that_does_not_answer_holds_nobody_who_is_known(
    node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cni, "FRESH_S", 0.05)
    node.known, node.hangs = OUT, True
    assert answered(node, request()) == [Answer(0)]
    node.known = None
    assert answered(node, request())[0].code == 11


def test_a_pod_that_is_nowhere_is_held(node: FakeNode) -> None:
    node.known = node.stored = None
    assert "no such pod" in answered(node, request())[0].message


@pytest.mark.parametrize("verdict", [NotEnrolled.UNREADABLE, NotEnrolled.NO_ADDRESS])
def test_in_doubt_a_pod_is_held(node: FakeNode, verdict: NotEnrolled) -> None:
    node.known = node.stored = Judged("u1", verdict)
    assert answered(node, request())[0].code == 11


def test_a_pod_of_the_mesh_without_an_address_is_held(node: FakeNode) -> None:
    assert "gave eth0 none" in answered(node, request(addresses=()))[0].message


def test_containers_of_others_and_system_pods_pass_before_anything_is_known(node: FakeNode) -> None:
    node.read.clear()
    system = request(pod=PodName("kube-system", "dns", "u9"))
    assert answered(node, request(pod=None), system, request("CHECK", pod=None)) == [Answer(0)] * 3
    assert answered(node, request())[0].code == 11


def test_a_second_sandbox_replaces_one_of_which_nobody_said_that_it_went(node: FakeNode) -> None:
    assert answered(node, request(), request(container="c2", netns="/y")) == [Answer(0)] * 2
    assert node.netns == {"u1": "/y"}


def test_a_pod_held_elsewhere_is_not_taken_for_this_one(node: FakeNode) -> None:
    """Sabotage of the check above: enrolled, but in another namespace than the request's."""
    node.sandboxes.put("u1", Sandbox("c1", "/x", ADDRESSES))
    node.plan()
    assert answered(node, request(netns="/gone"))[0].code == 11


@pytest.mark.parametrize(("container", "stays"), [("c1", False), ("c0", True)])
def test_a_removal_concerns_only_the_sandbox_that_lives(node: FakeNode, container: str, stays: bool) -> None:
    assert answered(node, request(), request("DEL", container=container)) == [Answer(0)] * 2
    assert ("u1" in node.pods) is stays


@pytest.mark.parametrize(("netns", "stays"), [("/x", False), ("/y", True), ("", True), ("/gone", True)])
def test_a_pod_enrolled_while_it_ran_is_known_by_its_namespace(node: FakeNode, netns: str, stays: bool) -> None:
    node.pods["u1"], node.netns["u1"] = Tracked(TARGET, State.ENROLLED), "/x"
    answered(node, request("DEL", netns=netns))
    assert ("u1" in node.pods) is stays


def test_check_sees_what_is_missing(node: FakeNode) -> None:
    (before,) = answered(node, request("CHECK"))
    assert before.code == 101
    assert answered(node, request(), request("CHECK"))[1] == Answer(0)


def served(node: FakeNode, work: Callable[[Path, PodStarts], Awaitable[None]]) -> None:
    async def run() -> None:
        path = node.root / "cni.sock"
        made = starts(node)
        task = asyncio.create_task(cni.serve(made, path))
        try:
            await until(path.exists)
            await work(path, made)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    asyncio.run(run())


def frame(*fields: bytes) -> bytes:
    return b"AMBCNI1\n" + b"".join(struct.pack("!I", len(field)) + field for field in fields)


GOOD = (
    b"ADD",
    b"c1",
    b"/x",
    b"eth0",
    plugin.arguments("shop", "web", "u1").encode(),
    plugin.configuration("/s", plugin.result("10.1.0.2")).encode(),
)


async def spoken(path: Path, sent: bytes) -> bytes:
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(sent)
    writer.write_eof()
    received = await reader.read()
    writer.close()
    await writer.wait_closed()
    return received


def test_the_socket_answers_in_the_frame_of_the_plugin(node: FakeNode) -> None:
    async def work(path: Path, made: PodStarts) -> None:
        assert await spoken(path, frame(*GOOD)) == bytes(8)
        assert made.told == {"ADD passed": 1}

    served(node, work)


BROKEN = {
    "nothing": b"",
    "another protocol": b"GET / HTTP/1.1\r\n\r\n",
    "a field too long": b"AMBCNI1\n" + struct.pack("!I", 1 << 30),
    "cut in a field": frame(*GOOD)[:-1],
    "cut in a length": frame(*GOOD[:3]) + b"\0\0",
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_frame_gets_no_answer_and_disturbs_nobody(node: FakeNode, what: str) -> None:
    async def work(path: Path, _: PodStarts) -> None:
        assert await spoken(path, BROKEN[what]) == b""
        assert await spoken(path, frame(*GOOD)) == bytes(8)

    served(node, work)


def test_a_request_that_cannot_be_understood_holds_the_pod(node: FakeNode) -> None:
    async def work(path: Path, _: PodStarts) -> None:
        answer = await spoken(path, frame(*GOOD[:-1], b"{"))
        assert struct.unpack("!I", answer[:4]) == (11,)
        assert b"is not JSON" in answer

    served(node, work)
