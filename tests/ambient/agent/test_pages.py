"""What the agent shows: true about every pod, and honest about what it does not know."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from ambient.agent.converge import Convergence
from ambient.agent.custody import Custody
from ambient.agent.discovery import Policies
from ambient.agent.enrol import Enrol, NotEnrolled
from ambient.agent.flow_totals import FlowTotals
from ambient.agent.http import Answer
from ambient.agent.kernel_policy import KernelPolicy
from ambient.agent.kernel_policy import Pods as KernelPods
from ambient.agent.metrics import Tally
from ambient.agent.pages import Pages
from ambient.agent.watch_older import OlderConnections
from ambient.agent.watch_packets import Packets
from ambient.agent.ztunnels import Ztunnels
from ambient.datapath.layout import Counter
from ambient.datapath.strangers import Stranger
from ambient.datapath.variant import Variant
from ambient.errors import KernelError
from tests.support.agent_fakes import Node, nobody, target, until
from tests.support.deny_tables import FakeLease, FakeRing, FakeTables, told


class NoPath:
    """A node where nobody takes the kernel path."""

    def shown(self) -> Mapping[str, int | bool]:
        return {"on": False}

    def render(self) -> str:
        return ""


class Bench:
    def __init__(self, node: Node) -> None:
        self.node = node
        self.why = ""
        self.convergence = Convergence(node.applier, lambda: None)
        older = OlderConnections(node.kernel, node.journal, node.applier.open, lambda pod: None, Tally(), node.threads)
        policies = Policies("n1", "Kubernetes", "ambient-system", lambda: None)
        tables = FakeTables()
        rows = KernelPolicy(tables, tables.sets, FakeLease(), policies, KernelPods, node.threads)
        self.ring = FakeRing()
        packets = Packets("n1", self.ring, dict, policies.workload_at, rows.denial, epoch=lambda: 1000.0)
        self.pages = Pages(
            node="n1",
            kernel=node.kernel,
            journal=node.journal,
            convergence=self.convergence,
            older=older,
            ztunnels=Ztunnels(nobody, lambda peer: None),
            custody=Custody(lambda: 0.0),
            policies=policies,
            tally=Tally(),
            kernel_policy=rows,
            packets=packets,
            totals=FlowTotals(),
            kernel_path=NoPath(),
            counters=lambda: {Counter.PROBE: 7},
            readiness=lambda: self.why,
            out=lambda: {"u9": ("shop/job", NotEnrolled.TERMINAL)},
            variant=Variant("clsact", "it is set so", "bcc", "0123456789ab", "ba9876543210", listeners="named"),
        )

    async def get(self, method: str, path: str, **query: str) -> Answer:
        return await self.pages.routes()[method, path](query)

    async def pods(self) -> dict[str, Any]:
        return dict(json.loads((await self.get("GET", "/pods")).body))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    node = Node(tmp_path / "pods")
    yield Bench(node)
    node.close()


def test_how_pods_are_captured_is_shown(bench: Bench) -> None:
    async def body() -> None:
        assert json.loads((await bench.get("GET", "/datapath")).body) == {
            "via": "clsact",
            "why": "it is set so",
            "loader": "bcc",
            "version": "0123456789ab",
            "schema": "ba9876543210",
            "lacks": "",
            "listeners": "named",
        }

    asyncio.run(body())


def test_an_enrolled_pod_is_shown_with_its_rows(bench: Bench) -> None:
    async def body() -> None:
        bench.convergence.act([Enrol(target())])
        await until(bench.convergence.settled)
        shown = await bench.pods()
        [pod] = shown["pods"]
        assert (pod["pod"], pod["state"], pod["step"], pod["problem"]) == ("shop/web", "enrolled", "ANNOTATE", "")
        assert pod["addresses"]["10.0.0.5"]["flags"] == ["CAPTURE_OUT", "CAPTURE_IN", "HBONE_IN", "DNS"]
        assert pod["addresses"]["10.0.0.5"]["fail_in"] == "closed"
        assert pod["since"] == 1000.0
        assert shown["not_enrolled"] == [{"pod": "shop/job", "uid": "u9", "reason": "has-ended"}]
        assert shown["counters"]["captured"]["probe"] == 7
        assert (shown["ztunnels"], shown["policies_known"]) == (0, False)

    asyncio.run(body())


def test_a_pod_that_cannot_join_is_shown_with_the_reason(bench: Bench) -> None:
    async def body() -> None:
        bench.node.kernel.fail["attach_pod"] = KernelError("no room")
        bench.convergence.act([Enrol(target())])
        await until(lambda: bench.convergence.tracked["uid-web"].problem)
        [pod] = (await bench.pods())["pods"]
        assert (pod["state"], pod["problem"]) == ("waiting", "step ATTACH: no room")
        metrics = (await bench.get("GET", "/metrics")).body
        assert 'ambient_agent_pods{state="waiting"} 1' in metrics
        assert "ambient_agent_enrolment_failures_total 0" not in metrics
        await bench.convergence.close()

    asyncio.run(body())


def test_readiness_says_why_not(bench: Bench) -> None:
    bench.why = "no objects were read yet"
    answer = asyncio.run(bench.get("GET", "/ready"))
    assert (answer.status, json.loads(answer.body)) == (503, {"ready": False, "why": "no objects were read yet"})
    bench.why = ""
    assert asyncio.run(bench.get("GET", "/ready")).status == 200


def test_only_a_pod_of_the_mesh_can_be_cut(bench: Bench) -> None:
    async def body() -> None:
        assert (await bench.get("POST", "/cut", pod="shop/web")).status == 404
        assert (await bench.get("POST", "/cut")).status == 404
        bench.convergence.act([Enrol(target())])
        await until(bench.convergence.settled)
        answer = await bench.get("POST", "/cut", pod="shop/web")
        assert (answer.status, json.loads(answer.body)) == (200, {"pod": "shop/web", "cut": 0})

    asyncio.run(body())


def test_flows_of_the_kernel_are_shown_from_a_number_on(bench: Bench) -> None:
    async def play() -> None:
        bench.ring.waiting += [told(1.0), told(2.0), told(3.0)]
        lines = (await bench.get("GET", "/flows", last="2")).body.splitlines()
        assert [json.loads(line)["time_unix"] for line in lines] == [1002.0, 1003.0]
        lines = (await bench.get("GET", "/flows", after="2")).body.splitlines()
        assert [json.loads(line)["sequence"] for line in lines] == [3]
        assert (await bench.get("GET", "/flows", last="many")).status == 400

    asyncio.run(play())


def test_programs_of_others_on_a_pods_interface_are_named(bench: Bench) -> None:
    async def play() -> None:
        bench.convergence.act([Enrol(target())])
        await until(lambda: bench.convergence.settled() and bench.convergence.tracked)
        assert json.loads((await bench.get("GET", "/strangers")).body) == {}
        bench.node.kernel.beside = (Stranger("eth0", "ingress", "tcx", "cil_from", first=True),)
        said = json.loads((await bench.get("GET", "/strangers")).body)
        assert said == {"shop/web": [{"what": "cil_from (tcx, ingress of eth0, before ours)", "first": True}]}
        await bench.convergence.close()

    asyncio.run(play())
