"""An agent that is killed at any step, on a real kernel: the next one brings every pod fully in or fully out."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from ambient.agent.journal import Step
from ambient.datapath import pod_net, programs
from ambient.datapath.hooks import HOOKS
from ambient.datapath.layout import Flag
from ambient.datapath.maps import Maps
from tests.support.agent_lab import AgentLab, agent_lab, eventually, namespace, pod, settled_world
from tests.support.capture_world import World, run
from tests.support.stand_in import App

AMBIENT = namespace("shop", "ambient")
PLAIN = namespace("shop")
POD = pod("pod", ["10.213.1.2", "fd00:213:1::2"])

IN_POINTS = [f"{when} {step.name}" for step in Step for when in ("before", "after")]
OUT_POINTS = [
    *("before release ROW", "after release ROW", "before undo ZDS", "before undo ATTACH", "before undo ROUTES"),
    *("before undo ROWS", "before forget"),
]


@pytest.fixture(scope="module")
def the_world() -> Iterator[World]:
    with settled_world(f"amb-agd-{os.getpid()}") as made:
        yield made


@pytest.fixture
def lab(the_world: World) -> Iterator[AgentLab]:
    with agent_lab(the_world) as made:
        made.ztunnel()
        yield made


def fully_in(lab: AgentLab) -> bool:
    app = App(lab.world, lab.world.outside, 4)
    with Maps.open(lab.bpffs) as tables:
        before = sum(tables.counters.read().values())
        rows = tables.pods.items()
        lab.connect(lab.world.pod, lab.world.outside, app.address.port).close()
        captured = sum(tables.counters.read().values()) > before
    app.close()
    return (
        captured
        and len(rows) == 2
        and all(Flag.CAPTURE_OUT in row.flags for row in rows.values())
        and [len(found) for found in programs.attached(lab.bpffs).values()] == [len(HOOKS)]
    )


def fully_out(lab: AgentLab) -> bool:
    with Maps.open(lab.bpffs) as tables:
        rows = tables.pods.items()
    names = f"{lab.world.prefix}-pod"
    return (
        not rows
        and not programs.attached(lab.bpffs)
        and "lookup 100"
        not in run("nsenter", f"--net=/run/netns/{names}", "ip", "rule")
        + run("nsenter", f"--net=/run/netns/{names}", "ip", "-6", "rule")
        and not run(
            "nsenter", f"--net=/run/netns/{names}", "ip", "route", "show", "table", "all", "scope", "host"
        ).count("table 100")
        and pod_net.observe(lab.world.pod.netns) == pod_net.PodNet("0")
        and not list((lab.root / "state" / "pods").iterdir())
    )


@pytest.mark.parametrize("where", IN_POINTS)
def test_killed_on_the_way_in(lab: AgentLab, where: str) -> None:
    lab.put(AMBIENT, POD)
    assert lab.agent_that_dies(where).popen.wait(90) == -9
    lab.agent()
    lab.enrolled("pod")
    assert fully_in(lab)


@pytest.mark.parametrize("where", IN_POINTS)
def test_killed_on_the_way_in_of_a_pod_that_is_deleted_then(lab: AgentLab, where: str) -> None:
    lab.put(AMBIENT, POD)
    assert lab.agent_that_dies(where).popen.wait(90) == -9
    revision = lab.delete("Pod", "pod")
    lab.agent()
    lab.settled(revision)
    eventually(lambda: fully_out(lab), "nothing left")


@pytest.mark.parametrize("where", OUT_POINTS)
def test_killed_on_the_way_out(lab: AgentLab, where: str) -> None:
    lab.put(AMBIENT, POD)
    dying = lab.agent_that_dies(where)
    lab.enrolled("pod")
    lab.put(PLAIN)
    assert dying.popen.wait(90) == -9
    lab.agent()
    eventually(lambda: fully_out(lab), "nothing left")
    eventually(lambda: lab.shown("pod") is None, "nor said")


@pytest.mark.parametrize("where", OUT_POINTS)
def test_killed_on_the_way_out_of_a_pod_that_is_labelled_again(lab: AgentLab, where: str) -> None:
    lab.put(AMBIENT, POD)
    dying = lab.agent_that_dies(where)
    lab.enrolled("pod")
    lab.put(PLAIN)
    assert dying.popen.wait(90) == -9
    revision = lab.put(AMBIENT)
    lab.agent()
    lab.settled(revision)
    assert lab.shown("pod") == "enabled"
    assert fully_in(lab)
