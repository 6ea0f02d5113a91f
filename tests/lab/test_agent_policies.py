"""Policies and what the agent does with them, with the real control plane: older connections that are forbidden end,
and a pod that policy selects never fails open.
"""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Iterator

import pytest

from ambient.datapath.layout import FailMode
from ambient.datapath.maps import Maps
from tests.support.agent_lab import PATIENCE_S, AgentLab, agent_lab, eventually, namespace, pod, settled_world
from tests.support.agent_objects import AMBIENT, OTHER, PLAIN, POD, deny_port, strict
from tests.support.capture_world import World
from tests.support.stand_in import App


@pytest.fixture(scope="module")
def the_world() -> Iterator[World]:
    with settled_world(f"amb-agp-{os.getpid()}") as made:
        yield made


@pytest.fixture
def lab(the_world: World) -> Iterator[AgentLab]:
    with agent_lab(the_world) as made:
        yield made


def joined_with_an_older_connection(lab: AgentLab) -> tuple[App, socket.socket]:
    """Both pods join while a connection from `pod` to `other` is open."""
    lab.ztunnel()
    lab.settled(lab.put(PLAIN, POD, OTHER))
    app = App(lab.world, lab.world.other, 4)
    old = lab.connect(lab.world.pod, lab.world.other, app.address.port)
    assert old.recv(100)
    lab.settled(lab.put(AMBIENT))
    return app, old


def ended(connection: socket.socket, patience_s: float) -> bool:
    connection.settimeout(patience_s)
    try:
        return connection.recv(100) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


@pytest.mark.parametrize("policy", ["strict", "deny"])
def test_policy_that_forbids_an_older_connection_ends_it(lab: AgentLab, policy: str) -> None:
    lab.control()
    lab.agent()
    app, old = joined_with_an_older_connection(lab)
    eventually(lambda: '"policies_known": true' in lab.http("GET", "/pods")[1], "policies are known")
    old.sendall(b"ping")
    assert old.recv(100) == b"ping"
    lab.put(strict() if policy == "strict" else deny_port(app.address.port))
    assert ended(old, PATIENCE_S)
    # The connection ends before the agent has noted that it has.
    eventually(lambda: lab.pods()["shop/other"]["older_connections"] == [], "it is listed no more")
    cut = 'ambient_agent_connections_cut_total{why="policy"} 1'
    eventually(lambda: cut in lab.http("GET", "/metrics")[1], "and counted")
    old.close()
    app.close()


def test_policy_that_forbids_something_else_leaves_it_alone(lab: AgentLab) -> None:
    lab.control()
    lab.agent()
    app, old = joined_with_an_older_connection(lab)
    lab.put(deny_port(app.address.port - 1))
    eventually(lambda: lab.pods()["shop/other"]["addresses"], "answers")
    assert not ended(old, 1.5)
    old.close()
    app.close()


def test_sabotage_an_agent_that_knows_no_policies_leaves_a_forbidden_connection_open(lab: AgentLab) -> None:
    lab.agent()
    app, old = joined_with_an_older_connection(lab)
    lab.put(strict())
    assert not ended(old, 1.5)
    old.close()
    app.close()


def fail_modes(lab: AgentLab) -> set[FailMode]:
    with Maps.open(lab.bpffs) as tables:
        rows = tables.pods.items()
    return {mode for row in rows.values() for mode in (row.fail_in, row.fail_out)}


def test_a_pod_fails_open_only_where_it_asked_and_no_policy_selects_it(lab: AgentLab) -> None:
    lab.control()
    lab.agent()
    stand_in = lab.ztunnel()
    willing = pod("pod", ["10.213.1.2"], annotations={"ambient.mesh/fail-mode": "open"})
    lab.settled(lab.put(AMBIENT, willing))
    eventually(lambda: fail_modes(lab) == {FailMode.OPEN}, "no policy selects it: open")
    lab.put(strict())
    eventually(lambda: fail_modes(lab) == {FailMode.CLOSED}, "STRICT: closed")
    app = App(lab.world, lab.world.outside, 4)
    stand_in.end(signal.SIGKILL)
    with pytest.raises(OSError, match="timed out"):
        lab.connect(lab.world.pod, lab.world.outside, app.address.port, patience_s=0.4)
    lab.put(strict("PERMISSIVE"))
    eventually(lambda: fail_modes(lab) == {FailMode.OPEN}, "no policy any more: open")
    lab.connect(lab.world.pod, lab.world.outside, app.address.port).close()
    lab.put(deny_port(9))
    eventually(lambda: fail_modes(lab) == {FailMode.CLOSED}, "any policy: closed")
    app.close()


def test_a_control_plane_that_goes_changes_nothing(lab: AgentLab) -> None:
    control = lab.control()
    lab.agent()
    lab.ztunnel()
    willing = pod("pod", ["10.213.1.2"], annotations={"ambient.mesh/fail-mode": "open"})
    lab.settled(lab.put(AMBIENT, willing))
    eventually(lambda: fail_modes(lab) == {FailMode.OPEN}, "open")
    control.end(signal.SIGKILL)
    eventually(lambda: "discovery:" in lab.processes[1].text(), "the agent noticed")
    assert fail_modes(lab) == {FailMode.OPEN}
    lab.settled(lab.put(namespace("elsewhere")))
    assert lab.shown("pod") == "enabled"
