"""From a policy among the objects to a connect() that the kernel refuses at once: the real agent and control plane."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
from collections.abc import Iterator

import pytest

from ambient.agent.kernel_policy import LEASE_S
from ambient.datapath.maps import Maps
from ambient.model.address import Endpoint
from tests.support.agent_lab import AgentLab, eventually, namespace, settled_world, whole_mesh
from tests.support.agent_objects import AMBIENT, OTHER, POD, deny_port, strict
from tests.support.capture_world import GIVE_UP, Place, World, family_of
from tests.support.stand_in import App


@pytest.fixture(scope="module")
def the_world() -> Iterator[World]:
    with settled_world(f"amb-kpl-{os.getpid()}") as made:
        yield made


@pytest.fixture
def lab(the_world: World) -> Iterator[AgentLab]:
    with whole_mesh(the_world, AMBIENT, POD, OTHER) as made:
        yield made


@pytest.fixture
def app(lab: AgentLab) -> Iterator[App]:
    made = App(lab.world, lab.world.other, 4)
    yield made
    made.close()


def attempt(lab: AgentLab, place: Place, target: Endpoint) -> str:
    """What connect() says: "open", "refused", or "silence"."""
    with lab.world.socket(place, family_of(target.ip.version)) as client:
        client.settimeout(GIVE_UP)
        try:
            client.connect((str(target.ip), target.port))
        except ConnectionRefusedError:
            return "refused"
        except TimeoutError:
            return "silence"
        return "open"


def becomes(lab: AgentLab, place: Place, target: Endpoint, wanted: str) -> None:
    eventually(lambda: attempt(lab, place, target) == wanted, f"{place.name} to {target} is {wanted}")


def counted(lab: AgentLab, reason: str) -> int:
    return int(json.loads(lab.http("GET", "/pods")[1])["counters"]["refused"][reason])


def test_a_deny_is_enforced_at_both_ends_in_the_kernel_until_it_goes(lab: AgentLab, app: App) -> None:
    world = lab.world
    assert attempt(lab, world.pod, app.address) == "open"
    lab.put(deny_port(app.address.port))
    becomes(lab, world.pod, app.address, "refused")
    becomes(lab, world.outside, app.address, "refused")
    assert counted(lab, "policy_out") >= 1
    assert counted(lab, "policy_in") >= 1
    lab.delete("AuthorizationPolicy", "no")
    becomes(lab, world.pod, app.address, "open")
    becomes(lab, world.outside, app.address, "open")


def test_strict_refuses_plain_text_in_the_kernel_and_nothing_between_pods(lab: AgentLab, app: App) -> None:
    lab.put(strict())
    becomes(lab, lab.world.outside, app.address, "refused")
    assert attempt(lab, lab.world.pod, app.address) == "open"
    lab.put(strict("PERMISSIVE"))
    becomes(lab, lab.world.outside, app.address, "open")


def test_what_was_refused_stays_refused_while_the_agent_is_dead(lab: AgentLab, app: App) -> None:
    lab.put(strict())
    becomes(lab, lab.world.outside, app.address, "refused")
    lab.processes[-1].end(signal.SIGKILL)
    assert attempt(lab, lab.world.outside, app.address) == "refused"


def test_what_a_dead_agent_left_is_asked_for_some_minutes_only(lab: AgentLab, app: App) -> None:
    lab.put(deny_port(app.address.port))
    becomes(lab, lab.world.pod, app.address, "refused")
    with Maps.open(lab.bpffs) as tables:
        left = tables.lease.left_s()
        assert left is not None
        assert 0 < left <= LEASE_S
        lab.processes[-1].end(signal.SIGKILL)
        tables.lease.renew(-1)
        with lab.connect(lab.world.pod, lab.world.other, app.address.port) as client:
            assert client.recv(100), "it is ztunnel's, who lets it pass"
        tables.lease.renew(LEASE_S)
        assert attempt(lab, lab.world.pod, app.address) == "refused", "the rows were there all the time"


def test_what_was_refused_is_told_with_policy_and_pods(lab: AgentLab, app: App) -> None:
    lab.put(deny_port(app.address.port))
    becomes(lab, lab.world.pod, app.address, "refused")
    becomes(lab, lab.world.outside, app.address, "refused")

    def told(direction: str) -> dict[str, str]:
        flows = [json.loads(line) for line in lab.http("GET", "/flows")[1].splitlines()]
        denied = (flow for flow in flows if flow["event"] == "denied")
        return next((flow for flow in denied if flow["direction"] == direction), {})

    out, arriving = (eventually(lambda way=way: told(way), way) for way in ("outbound", "inbound"))  # type: ignore[misc]
    assert (out["policy"], out["reason"], out["event"]) == ("shop/no", "denied-by", "denied")
    assert out["source_principal"] == "spiffe://cluster.local/ns/shop/sa/seller"
    assert (out["source_pod"], out["destination_pod"]) == ("pod", "other")
    assert arriving["destination_pod"] == "other"
    assert "source_principal" not in arriving
    wanted = 'ambient_policy_denials_total{policy="shop/no",reason="denied-by"}'
    eventually(lambda: wanted in lab.http("GET", "/metrics")[1], "it is counted")


def test_older_connections_and_new_ones_raise_no_alarm(lab: AgentLab, app: App) -> None:
    lab.settled(lab.put(namespace("shop")))
    old = lab.connect(lab.world.pod, lab.world.other, app.address.port)
    assert old.recv(100)
    lab.settled(lab.put(AMBIENT))
    new = lab.connect(lab.world.pod, lab.world.other, app.address.port)
    for client in (old, new):
        client.sendall(b"data")
        assert client.recv(100)
        client.close()
    counted_clear = json.loads(lab.http("GET", "/pods")[1])["counters"]["clear_text"]
    assert counted_clear == {"out": 0, "in": 0}


def test_what_goes_on_the_network_outside_of_tunnels_is_told_and_counted(lab: AgentLab) -> None:
    server = App(lab.world, lab.world.outside, 4)
    try:
        client = lab.connect(lab.world.pod, lab.world.outside, server.address.port)
        assert client.recv(100)
        client.close()

        def told() -> list[dict[str, object]]:
            flows = [json.loads(line) for line in lab.http("GET", "/flows")[1].splitlines()]
            return [flow for flow in flows if flow["destination"] == str(server.address) and flow["event"] == "closed"]

        (flow, *_) = eventually(told, "a flow")
        assert flow["source_pod"] == "pod"
        assert flow["source_principal"] == "spiffe://cluster.local/ns/shop/sa/seller"
        wanted = 'ambient_flows_total{source="shop/seller",destination="unknown",protocol="tcp",direction="outbound"'
        eventually(lambda: wanted in lab.http("GET", "/metrics")[1], "the totals")
    finally:
        server.close()


def test_a_policy_that_is_about_udp_as_well_is_enforced_until_it_goes(lab: AgentLab) -> None:
    """To the pod's own address, and by a broadcast of its network, as a neighbour on a bridge can send it."""
    world = lab.world
    receiver = world.socket(world.other, socket.AF_INET, socket.SOCK_DGRAM)
    sender = world.socket(world.outside, socket.AF_INET, socket.SOCK_DGRAM)
    neighbour = world.socket(world.node, socket.AF_INET, socket.SOCK_DGRAM)
    with receiver, sender, neighbour:
        neighbour.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        receiver.bind(("", 0))
        port = receiver.getsockname()[1]
        receiver.settimeout(GIVE_UP)
        own = str(world.other.ip(4))
        ways = {b"own": (sender, own), b"all": (neighbour, own.rpartition(".")[0] + ".255")}

        def arrives() -> set[bytes]:
            for what, (by, to) in ways.items():
                by.sendto(what, (to, port))
            found = set()
            with contextlib.suppress(TimeoutError):
                while found != set(ways):
                    found.add(receiver.recv(100))
            return found

        eventually(lambda: arrives() == set(ways), "it is open")
        about = deny_port(port)
        about["metadata"]["annotations"] = {"ambient.mesh/protocols": "udp"}
        lab.put(about)
        eventually(lambda: not arrives() and counted(lab, "policy_udp") >= 1, "it is refused")

        def told() -> list[object]:
            flows = [json.loads(line) for line in lab.http("GET", "/flows")[1].splitlines()]
            return [flow["policy"] for flow in flows if flow.get("protocol") == "udp" and flow["event"] == "denied"]

        assert eventually(told, "it is told")[0] == "shop/no"
        lab.delete("AuthorizationPolicy", "no")
        eventually(lambda: arrives() == set(ways), "it is open again")
