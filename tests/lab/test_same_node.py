"""The same-node kernel path by the real agent and control plane: from the label of a namespace to a cut connection."""

from __future__ import annotations

import json
import os
import random
import signal
import socket
from collections.abc import Iterator
from functools import partial

import pytest

from ambient.datapath.maps import Maps
from tests.support.agent_lab import AgentLab, eventually, settled_world, whole_mesh
from tests.support.agent_objects import AMBIENT, OTHER, POD, WILLING, deny_port
from tests.support.capture_bench import echoed, greeting
from tests.support.capture_world import World
from tests.support.direct_churn import churn, dialled, serve, talk
from tests.support.stand_in import App

CHURN_S = 6.0


@pytest.fixture(scope="module")
def the_world() -> Iterator[World]:
    with settled_world(f"amb-smn-{os.getpid()}") as made:
        yield made


@pytest.fixture
def lab(the_world: World) -> Iterator[AgentLab]:
    with whole_mesh(the_world, WILLING, POD, OTHER) as made:
        yield made


@pytest.fixture
def app(lab: AgentLab) -> Iterator[App]:
    made = App(lab.world, lab.world.other, 4)
    yield made
    made.close()


def dial(lab: AgentLab, app: App) -> socket.socket:
    client = dialled(lab.world, (str(app.address.ip), app.address.port), 20)
    try:
        assert greeting(client).ip == lab.world.pod.ip(4)
    except BaseException:
        client.close()
        raise
    return client


def counted(lab: AgentLab) -> int:
    return int(json.loads(lab.http("GET", "/pods")[1])["counters"]["captured"]["direct_out"])


def goes_directly(lab: AgentLab, app: App) -> bool:
    """False also while the agent is not up or something still refuses."""
    try:
        before = counted(lab)
        with dial(lab, app) as client:
            assert echoed(client, b"hello")
        return counted(lab) > before
    except (OSError, ValueError):
        return False


def direct(lab: AgentLab, app: App) -> socket.socket:
    """An open connection on the kernel path; an agent that is held up for seconds lets one take the tunnel."""
    eventually(lambda: goes_directly(lab, app), "connections take the kernel path")
    opened: list[socket.socket] = []

    def there() -> bool:
        before = counted(lab)
        client = dial(lab, app)
        if counted(lab) > before:
            opened.append(client)
            return True
        client.close()
        return False

    eventually(there, "this one does, too")
    return opened[0]


def ended(client: socket.socket) -> bool:
    try:
        client.send(b"more")
        return client.recv(100) == b""
    except TimeoutError:
        return False
    except OSError:
        return True


def test_the_second_connection_needs_no_tunnel_and_both_are_named(lab: AgentLab, app: App) -> None:
    with direct(lab, app) as client:
        assert echoed(client, b"x" * 100_000)
    app.close()
    name = "spiffe://cluster.local/ns/shop/sa/"

    def told() -> list[dict[str, object]]:
        lines = lab.http("GET", "/flows?last=100")[1].splitlines()
        flows = [flow for flow in map(json.loads, lines) if flow.get("security") == "kernel"]
        return [flow for flow in flows if flow["bytes_sent"] == 100_000]

    def both() -> bool:
        return {flow["direction"] for flow in told()} == {"outbound", "inbound"}

    eventually(both, "the connection is told, both ways")
    flows = told()
    assert str(flows[0]["source_principal"]).startswith(name)
    assert str(flows[0]["destination_principal"]).startswith(name)
    eventually(lambda: 'connection_security_policy="kernel"' in lab.http("GET", "/metrics")[1], "and counted")


def test_a_policy_that_refuses_cuts_what_is_open(lab: AgentLab, app: App) -> None:
    with direct(lab, app) as client:
        assert echoed(client, b"hello")
        lab.put(deny_port(app.address.port))
        client.settimeout(0.2)
        eventually(lambda: ended(client), "the connection is cut")
    lab.delete("AuthorizationPolicy", "no")
    eventually(lambda: goes_directly(lab, app), "and afterwards it is allowed again")


def test_who_no_longer_wants_it_has_tunnels_again(lab: AgentLab, app: App) -> None:
    with direct(lab, app) as client:
        lab.settled(lab.put(AMBIENT))
        client.settimeout(0.2)
        eventually(lambda: ended(client), "the connection is cut")
    assert not goes_directly(lab, app)


def test_without_an_agent_open_connections_go_on_and_new_ones_take_the_tunnel(lab: AgentLab, app: App) -> None:
    with direct(lab, app) as client:
        lab.processes[-1].end(signal.SIGKILL)
        with Maps.open(lab.bpffs) as tables:

            def tunnelled() -> bool:
                before = len(tables.direct.ways())
                with dial(lab, app) as another:
                    return echoed(another, b"hello") and len(tables.direct.ways()) == before

            eventually(tunnelled, "new connections take the tunnel")
        assert echoed(client, b"still here")
        lab.agent()
        eventually(lambda: goes_directly(lab, app), "the next agent grants again")
        assert echoed(client, b"and still")


@pytest.fixture
def digester(lab: AgentLab) -> Iterator[socket.socket]:
    listener = lab.world.socket(lab.world.other, socket.AF_INET)
    listener.bind((str(lab.world.other.ip(4)), 0))
    listener.listen(64)
    serve(listener)
    yield listener
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def test_churn_loses_no_octet_and_leaves_nothing_behind(lab: AgentLab, digester: socket.socket) -> None:
    churning = partial(dialled, lab.world, digester.getsockname(), 20)

    def granted() -> bool:
        churning().close()
        return bool(json.loads(lab.http("GET", "/pods")[1])["kernel_path"]["grants"])

    eventually(granted, "connections take the kernel path")
    before = counted(lab)
    found = churn(churning, CHURN_S, seed=7)
    assert found.wrong == []
    assert sum(found.done.values()) > 0
    assert counted(lab) > before
    with Maps.open(lab.bpffs) as tables:
        eventually(lambda: not tables.direct.ways(), "no way is left")


def test_sabotage_urgent_data_that_comes_as_ordinary_is_seen_by_the_churn() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        serve(listener)
        there = partial(socket.create_connection, listener.getsockname())
        assert talk(there, "urgent", random.Random(7)) > 0
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)
        assert talk(there, "urgent", random.Random(7)) == -1
        listener.shutdown(socket.SHUT_RDWR)
