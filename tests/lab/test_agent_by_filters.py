"""An agent on a node without TCX: pods come in by filters of clsact, are kept in, and the next agent may use links."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest

from ambient.datapath import programs
from tests.support.agent_lab import AgentLab, agent_lab, eventually, namespace, pod, settled_world
from tests.support.capture_world import run
from tests.support.stand_in import App

POD = pod("pod", ["10.213.1.2", "fd00:213:1::2"])


@pytest.fixture
def lab() -> Iterator[AgentLab]:
    with settled_world(f"amb-agf-{os.getpid()}") as made, agent_lab(made, AMBIENT_CAPTURE="clsact") as lab:
        yield lab


def tc(lab: AgentLab, *words: str) -> str:
    return run("nsenter", f"--net=/run/netns/{lab.world.prefix}-pod", "tc", *words)


def captured(lab: AgentLab, app: App) -> bool:
    """ztunnel's stand-in is there, so that a connection that is captured goes through."""
    before = counters(lab)
    with lab.connect(lab.world.pod, lab.world.outside, app.address.port) as client:
        client.recv(100)
    return counters(lab) > before


def counters(lab: AgentLab) -> int:
    status, body = lab.http("GET", "/pods")
    assert status == 200
    return int(json.loads(body)["counters"]["captured"]["redirected_out"])


def test_in_by_filters_mended_and_taken_over_by_links(lab: AgentLab) -> None:
    agent = lab.agent()
    lab.ztunnel()
    lab.put(namespace("shop", "ambient"), POD)
    lab.enrolled("pod")
    app = App(lab.world, lab.world.outside, 4)
    assert captured(lab, app)
    said = json.loads(lab.http("GET", "/datapath")[1])
    assert (said["via"], said["why"]) == ("clsact", "it is set so")
    tc(lab, "qdisc", "del", "dev", "eth0", "clsact")
    agent.wait_for("somebody detached or replaced a program of the mesh")
    eventually(lambda: "ambient:pod_egress" in tc(lab, "filter", "show", "dev", "eth0", "egress"), "filters are back")
    agent.end()
    lab.settings["AMBIENT_CAPTURE"] = "auto"
    lab.agent()
    eventually(lambda: "clsact" not in tc(lab, "qdisc", "show"), "links have taken their place")
    eventually(lambda: all(one.alive for one in programs.attached(lab.bpffs)[lab.uid("pod")]), "every program is on")
    eventually(lambda: lab.http("GET", "/pods")[0] == 200, "the agent answers")
    eventually(lambda: lab.pods()["shop/pod"]["state"] == "enrolled", "it is in")
    assert captured(lab, app)
    app.close()
