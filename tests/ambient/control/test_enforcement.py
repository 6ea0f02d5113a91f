"""When it is said that a policy is with everybody, and by whom."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address

from ambient.control.enforcement import NOBODY_S, PATIENCE_S, RECOUNT_S, SLOWEST_S, Enforcement
from ambient.kube.objects import AuthorizationPolicy, Pod, Records
from ambient.model.address import Endpoint
from tests.support.acceptance import KEY, Stream, records
from tests.support.waiting import eventually


class Bench:
    def __init__(self) -> None:
        self.now = 0.0
        self.leads = True
        self.streams: dict[str, Stream] = {}
        self.said: list[tuple[str, str]] = []
        self.one = Enforcement(
            lambda: list(self.streams.items()),
            lambda: self.leads,
            self.say,
            namespace="ambient-system",
            replica="one",
            port=lambda: 15014,
            clock=lambda: self.now,
        )

    def say(self, key: str) -> None:
        found = self.one.verdict(key)
        self.said.append((found.status, found.message) if found is not None else ("", ""))

    def judge(self, after_s: float = 0.0) -> None:
        self.now += after_s
        self.one.judge([])


def test_it_is_said_once_everybody_has_it_and_until_then_what_is_said_waits() -> None:
    bench = Bench()
    bench.streams = {"n1": Stream(6)}
    bench.one.hear(records(7))
    assert bench.one.waits(KEY)
    bench.judge()
    assert bench.said == []
    bench.streams["n1"].acked = 7
    bench.judge(1)
    assert bench.said == [("True", "accepted by 1 of 1 nodes")]
    assert not bench.one.waits(KEY)


def test_when_nodes_have_come_or_gone_for_good_it_is_counted_anew() -> None:
    bench = Bench()
    bench.streams = {"n1": Stream(7)}
    bench.one.hear(records(7))
    bench.judge()
    bench.streams["n2"] = Stream(0)
    for _ in range(3):
        bench.judge(RECOUNT_S)
    assert not bench.one.waits(KEY), "what was said stands until something else is known"
    assert bench.said[1:] == [("Unknown", "accepted by 1 of 2 nodes; waiting for n2")]
    bench.streams["n2"].acked = 7
    bench.judge(SLOWEST_S)
    assert bench.said[2:] == [("True", "accepted by 2 of 2 nodes")]
    del bench.streams["n1"]
    bench.judge(RECOUNT_S)
    bench.judge(RECOUNT_S)
    assert bench.said[3:] == [("True", "accepted by 1 of 1 nodes")]
    for _ in range(3):
        bench.judge(RECOUNT_S)
    assert len(bench.said) == 4


def test_a_node_that_connects_again_changes_nothing() -> None:
    bench = Bench()
    bench.streams = {"n1": Stream(7), "n2": Stream(7)}
    bench.one.hear(records(7))
    bench.judge(RECOUNT_S)
    for _ in range(4):
        away = bench.streams.pop("n2")
        bench.judge(RECOUNT_S)
        bench.streams["n2"] = away
        bench.judge(RECOUNT_S)
    assert bench.said == [("True", "accepted by 2 of 2 nodes")]


def test_while_a_replica_is_silent_nobody_is_counted() -> None:
    bench = Bench()
    bench.streams = {"n1": Stream(7)}
    bench.one.hear(records(7))
    bench.judge()
    bench.streams["n2"] = Stream(7)
    for _ in range(3):
        bench.now += RECOUNT_S
        bench.one.judge([], silent=True)
    assert len(bench.said) == 1


def test_who_is_slow_is_named_after_a_while_and_the_rest_is_said_when_it_comes() -> None:
    bench = Bench()
    bench.streams = {"n1": Stream(7), "n2": Stream(0)}
    bench.one.hear(records(7))
    bench.judge()
    bench.judge(PATIENCE_S)
    assert bench.said == [("Unknown", "accepted by 1 of 2 nodes; waiting for n2")]
    for _ in range(5):
        bench.judge(SLOWEST_S)
    assert len(bench.said) == 1
    bench.streams["n2"].acked = 7
    bench.judge(SLOWEST_S)
    assert bench.said[-1] == ("True", "accepted by 2 of 2 nodes")


def test_after_a_restart_nodes_are_given_time_to_come_back() -> None:
    bench = Bench()
    bench.one.hear(records(7))
    bench.judge(NOBODY_S / 2)
    assert bench.said == []
    bench.judge(NOBODY_S)
    assert bench.said == [("Unknown", "no node is connected")]
    bench.one.hear(records(8, generation=2))
    bench.judge()
    bench.judge(PATIENCE_S)
    assert len(bench.said) == 2


def test_a_new_version_is_judged_anew() -> None:
    bench = Bench()
    bench.streams = {"n1": Stream(7)}
    bench.one.hear(records(7))
    bench.judge()
    bench.one.hear(records(8, generation=2))
    assert bench.one.verdict(KEY) is None
    assert bench.one.waits(KEY)


def test_replicas_are_found_among_the_pods() -> None:
    def pod(name: str, ip: str, **changes: object) -> Pod:
        values = {"namespace": "ambient-system", "labels": {"app": "ambient-control"}, "ready": True, **changes}
        return Pod(name=name, ips=(ip_address(ip),), **values)  # type: ignore[arg-type]

    pods = [
        pod("one", "10.0.0.1"),
        pod("two", "10.0.0.2"),
        pod("three", "fd00::3"),
        pod("starting", "10.0.0.4", ready=False),
        pod("other", "10.0.0.5", labels={"app": "other"}),
        pod("elsewhere", "10.0.0.6", namespace="shop"),
    ]
    bench = Bench()
    bench.one.hear(Records(1, {one.key: one for one in pods}))
    assert set(map(str, bench.one.peers)) == {"10.0.0.2:15014", "[fd00::3]:15014"}
    left = {one.key: one for one in pods if one.name != "two"}
    bench.one.hear(Records(2, left, changed=frozenset({"Pod/ambient-system/two"})))
    assert set(map(str, bench.one.peers)) == {"[fd00::3]:15014"}


def test_only_the_one_that_writes_asks_and_a_silent_replica_leaves_it_open() -> None:
    async def scenario() -> None:
        bench = Bench()
        bench.leads = False
        bench.streams = {"n1": Stream(7)}
        policy = AuthorizationPolicy(name="deny", namespace="shop", uid="u")
        snapshot = Records(7, {policy.key: policy})
        bench.one.hear(snapshot)
        bench.one.peers = (Endpoint(ip_address("127.0.0.1"), 1),)
        task = asyncio.create_task(bench.one.run())
        for _ in range(50):
            await asyncio.sleep(0)
        assert bench.one._open[KEY].next_at == 0.0
        bench.leads = True
        await eventually(lambda: bench.one._open[KEY].next_at > 0)
        assert bench.said == []
        bench.now = 100.0
        await eventually(lambda: bench.said)
        assert "another replica does not say" in bench.said[0][1]
        bench.one.peers = ()
        bench.now = 200.0
        await eventually(lambda: bench.said[-1][0] == "True")
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(scenario())
