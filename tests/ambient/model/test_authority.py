"""What an authority means at a pod: every way in which a waypoint may be named, and everything that is not that."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from ambient.model.authority import meaning_of, stands_in_front
from ambient.model.mesh import Mesh, Value
from ambient.model.workload import (
    ApplicationTunnel,
    GatewayAddress,
    NamespacedHostname,
    NetworkAddress,
    Port,
    WeightedWaypoint,
    Workload,
)
from tests.support.builders import behind, mesh, service, waypoint, workload

WP = service("wp", "10.96.0.9", (15008, 15008))
POD = behind(workload("wp", "10.0.9.1"), WP)
WEB = service("web", "10.96.0.1,fd96::1", (80, 8080))
PEER = workload("peer", "10.0.0.2")
BY_VIP = GatewayAddress(NetworkAddress("", ip_address("10.96.0.9")))
BY_IP = GatewayAddress(NetworkAddress("", ip_address("10.0.9.1")))
BY_NAME = GatewayAddress(NamespacedHostname("default", "gw.example"))
NAMED = replace(POD, services={}, hostname="gw.example")
TUNNEL = replace(POD, application_tunnel=ApplicationTunnel())
HOST = "web.default.svc.cluster.local"
GUARDED = replace(WEB, waypoint=waypoint())

ROWS: dict[str, tuple[tuple[Value, ...], Workload, str, tuple[int, str]]] = {
    "a service whose waypoint is the pod's service": ((GUARDED, WP, POD), POD, "10.96.0.1:80", (80, "10.96.0.1")),
    "by its other family": ((GUARDED, WP, POD), POD, "[fd96::1]:80", (80, "fd96::1")),
    "any port of it": ((GUARDED, WP, POD), POD, "10.96.0.1:81", (81, "10.96.0.1")),
    "a service whose waypoint is the service's address": (
        (replace(WEB, waypoint=BY_VIP), WP, POD),
        *(POD, "10.96.0.1:80", (80, "10.96.0.1")),
    ),
    "a service whose waypoint is the pod's address": (
        (replace(WEB, waypoint=BY_IP), WP, POD),
        *(POD, "10.96.0.1:80", (80, "10.96.0.1")),
    ),
    "a service whose waypoint is the pod's own name": (
        (replace(WEB, waypoint=BY_NAME), NAMED),
        *(NAMED, "10.96.0.1:80", (80, "10.96.0.1")),
    ),
    "a canary of a waypoint": (
        (replace(WEB, weighted_waypoints=(WeightedWaypoint(waypoint(), 1),)), WP, POD),
        *(POD, "10.96.0.1:80", (80, "10.96.0.1")),
    ),
    "a pod whose waypoint it is": (
        (replace(PEER, waypoint=waypoint()), WP, POD),
        *(POD, "10.0.0.2:7", (7, "10.0.0.2")),
    ),
    "a service with another waypoint": (
        (replace(WEB, waypoint=waypoint("other")), service("other", "10.96.0.8"), WP, POD),
        *(POD, "10.96.0.1:80", (0, "")),
    ),
    "a service without a waypoint": ((WEB, WP, POD), POD, "10.96.0.1:80", (0, "")),
    "a pod without a waypoint": ((PEER, WP, POD), POD, "10.0.0.2:7", (0, "")),
    "nobody's address": ((GUARDED, WP, POD), POD, "192.0.2.1:80", (0, "")),
    "an address of another network": (
        (replace(GUARDED, addresses=(NetworkAddress("east", ip_address("10.96.0.1")),)), WP, POD),
        *(POD, "10.96.0.1:80", (0, "")),
    ),
    "the name of what it stands in front of means the service's port": (
        (GUARDED, WP, POD),
        *(POD, f"{HOST}:80", (8080, "10.96.0.1")),
    ),
    "a port that the service lacks": ((GUARDED, WP, POD), POD, f"{HOST}:81", (0, "10.96.0.1")),
    "the name of what it does not stand in front of": ((WEB, WP, POD), POD, f"{HOST}:80", (0, "")),
    "the same with an application tunnel": ((WEB, WP, TUNNEL), TUNNEL, f"{HOST}:80", (8080, "10.96.0.1")),
    "the pod's own port goes before the service's": (
        (WEB, behind(workload("a", "10.0.0.5"), WEB, ports=((80, 9090),))),
        *(behind(workload("a", "10.0.0.5"), WEB, ports=((80, 9090),)), f"{HOST}:80", (9090, "10.96.0.1")),
    ),
    "a named port that only the pod knows": (
        (replace(WEB, ports=(Port(80, 0),)), behind(workload("a", "10.0.0.5"), WEB, ports=((80, 9090),))),
        *(behind(workload("a", "10.0.0.5"), WEB, ports=((80, 9090),)), f"{HOST}:80", (9090, "10.96.0.1")),
    ),
    "a name that is not": ((GUARDED, WP, POD), POD, "nobody.example:80", (0, "")),
    "a port of more digits than a number may have": ((GUARDED, WP, POD), POD, f"{HOST}:{'9' * 5_000}", (0, "")),
    "a port in the digits of another script": ((GUARDED, WP, POD), POD, f"{HOST}:\u0668\u0660", (0, "")),
    "no port": ((GUARDED, WP, POD), POD, HOST, (0, "")),
    "nothing": ((GUARDED, WP, POD), POD, "", (0, "")),
}


@pytest.mark.parametrize("row", ROWS)
def test_meanings(row: str) -> None:
    world, pod, authority, (port, address) = ROWS[row]
    found = meaning_of(mesh(*world), pod, authority, "")
    assert (found.port, str(found.address or "")) == (port, address)


def test_what_stands_for_a_service_is_its_address_on_our_network_and_then_the_fourth_version() -> None:
    far, near_six = NetworkAddress("east", ip_address("10.1.1.1")), NetworkAddress("", ip_address("fd96::1"))
    world = mesh(replace(WEB, addresses=(far, near_six)), TUNNEL, WP)
    assert str(meaning_of(world, TUNNEL, f"{HOST}:80", "").address) == "fd96::1"
    assert str(meaning_of(world, TUNNEL, f"{HOST}:80", "east").address) == "10.1.1.1"
    assert meaning_of(mesh(replace(WEB, addresses=()), TUNNEL, WP), TUNNEL, f"{HOST}:80", "").address is None


CHANGES: dict[str, tuple[tuple[Value, ...], Value, str]] = {
    "the service gets the waypoint": ((WEB, WP, POD), GUARDED, "10.96.0.1:80"),
    "the waypoint's service appears": ((GUARDED, POD), WP, "10.96.0.1:80"),
    "a pod gets the waypoint": ((PEER, WP, POD), replace(PEER, waypoint=waypoint()), "10.0.0.2:80"),
    "the service appears at the address": ((WP, POD), GUARDED, "10.96.0.1:80"),
    "the service appears under the name": ((WP, POD), GUARDED, f"{HOST}:80"),
    "a block of addresses appears around it": (
        (WP, POD),
        replace(GUARDED, addresses=(NetworkAddress("", ip_address("10.7.0.0"), 16),)),
        "10.7.0.1:80",
    ),
    "the service gets the port": ((replace(GUARDED, ports=()), WP, POD), GUARDED, f"{HOST}:80"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_meaning_depends_on_what_changes_it(change: str) -> None:
    before, arriving, authority = CHANGES[change]
    world = mesh(*before)
    old = meaning_of(world, POD, authority, "")
    changes = world.apply([arriving])
    assert meaning_of(world, POD, authority, "").port != old.port
    assert changes.names & old.depends


@pytest.mark.parametrize("how", [waypoint(), BY_VIP, BY_IP])
def test_a_pod_that_anything_names_as_its_waypoint_stands_in_front(how: GatewayAddress) -> None:
    assert stands_in_front(mesh(replace(WEB, waypoint=how), WP, POD), POD)
    assert stands_in_front(mesh(replace(PEER, waypoint=how), WP, POD), POD)
    canary = replace(WEB, weighted_waypoints=(WeightedWaypoint(how, 0),))
    assert stands_in_front(mesh(canary, WP, POD), POD)
    assert stands_in_front(mesh(replace(WEB, waypoint=BY_NAME), NAMED), NAMED)
    assert not stands_in_front(mesh(WEB, PEER, WP, POD), POD)


def test_nobody_stands_in_front_any_more_when_the_last_who_said_so_is_gone() -> None:
    world: Mesh = mesh(GUARDED, replace(PEER, waypoint=waypoint()), WP, POD)
    world.apply([WEB])
    assert stands_in_front(world, POD)
    world.apply([], [("workload", PEER.uid)])
    assert not stands_in_front(world, POD)
