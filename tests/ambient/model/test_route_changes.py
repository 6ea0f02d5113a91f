"""What a plan depends on: whatever changes it is named among what it was made from, and nothing else is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ambient.model.mesh import Value
from ambient.model.route import route
from ambient.model.workload import (
    GatewayAddress,
    Health,
    Locality,
    NamespacedHostname,
    Scope,
    TunnelProtocol,
    Workload,
)
from tests.support.builders import behind, mesh, service, to, waypoint, workload
from tests.support.routes import (
    BY_IP,
    BY_VIP,
    CLIENT,
    EVERYWHERE,
    GUARDED,
    PEER,
    STRICT,
    TWO,
    WEB,
    WP,
    WP_POD,
    balanced,
    cidr,
    ends,
)
from tests.support.routes_gateways import (
    EAST_GW,
    GLOBAL,
    split,
)

CHANGES: dict[str, tuple[tuple[Value, ...], str, Value]] = {
    "the gateway of another network appears": ((GLOBAL, split()), "10.96.0.1:80", EAST_GW),
    "the gateway of another network is renamed": (
        (GLOBAL, split(), EAST_GW),
        "10.96.0.1:80",
        replace(EAST_GW, service_account="other"),
    ),
    "a pod appears at the address": ((), "10.0.0.2:80", PEER),
    "a pod starts to speak HBONE": ((replace(PEER, tunnel_protocol=TunnelProtocol.NONE),), "10.0.0.2:80", PEER),
    "a better workload takes the address": (
        (replace(PEER, tunnel_protocol=TunnelProtocol.NONE),),
        "10.0.0.2:80",
        workload("another", "10.0.0.2"),
    ),
    "a service gets the address": ((), "10.96.0.1:80", WEB),
    "a block appears around the address": ((), "10.8.0.1:443", cidr("10.8.0.0/16")),
    "a narrower block appears around the first address of a block": (
        (cidr("10.8.0.0/16"), *ends("a 10.0.1.1", of=cidr("10.8.0.0/16"))),
        "10.8.0.0:443",
        replace(cidr("10.8.0.0/24"), hostname="narrow.example"),
    ),
    "a narrower block appears": (
        (cidr("10.8.0.0/16"), *ends("a 10.0.1.1", of=cidr("10.8.0.0/16"))),
        "10.8.0.1:443",
        replace(cidr("10.8.0.0/24"), hostname="narrow.example"),
    ),
    "an endpoint is added": ((WEB, TWO[0]), "10.96.0.1:80", TWO[1]),
    "an endpoint becomes unhealthy": ((WEB, *TWO), "10.96.0.1:80", replace(TWO[0], status=Health.UNHEALTHY)),
    "an endpoint leaves the service": ((WEB, *TWO), "10.96.0.1:80", replace(TWO[0], services={})),
    "a service gets a waypoint": ((WEB, *TWO, WP, WP_POD), "10.96.0.1:80", GUARDED),
    "the waypoint appears": ((GUARDED, *TWO), "10.96.0.1:80", WP),
    "the waypoint's pod appears": ((GUARDED, *TWO, WP), "10.96.0.1:80", WP_POD),
    "the waypoint's pod moves": ((GUARDED, WP, WP_POD), "10.96.0.1:80", behind(workload("wp", "10.0.9.9"), WP)),
    "a waypoint by hostname appears as a workload": (
        (replace(WEB, waypoint=GatewayAddress(NamespacedHostname("default", "gw.example"))),),
        "10.96.0.1:80",
        workload("gw", "10.0.9.1", hostname="gw.example"),
    ),
    "the pod of a waypoint known by its service's address moves": (
        (replace(WEB, waypoint=BY_VIP), WP, WP_POD),
        "10.96.0.1:80",
        behind(workload("wp", "10.0.9.9"), WP),
    ),
    "a waypoint by address appears": ((replace(WEB, waypoint=BY_IP),), "10.96.0.1:80", WP_POD),
    "a pod gets a waypoint": ((PEER, WP, WP_POD), "10.0.0.2:80", replace(PEER, waypoint=waypoint())),
    "the client moves to another zone": (
        (CLIENT, balanced(STRICT, Scope.ZONE), *EVERYWHERE),
        "10.96.0.1:80",
        replace(CLIENT, locality=Locality("r1", "z2")),
    ),
}


@pytest.mark.parametrize(("world", "dial", "change"), CHANGES.values(), ids=CHANGES.keys())
def test_a_plan_that_changes_was_made_from_something_that_was_touched(
    world: tuple[Value, ...], dial: str, change: Value
) -> None:
    view = mesh(*world)
    before = route(view, CLIENT, to(dial))
    changes = view.apply([change])
    source = change if isinstance(change, Workload) and change.uid == CLIENT.uid else CLIENT
    assert route(view, source, to(dial)).plan != before.plan
    assert not before.depends.isdisjoint(changes.names)


def test_what_has_nothing_to_do_with_a_plan_does_not_touch_it() -> None:
    view = mesh(WEB, *TWO, GUARDED)
    depends = route(view, CLIENT, to("10.96.0.1:80")).depends
    changes = view.apply([workload("stranger", "10.0.7.7"), service("stranger", "10.96.7.7")])
    assert depends.isdisjoint(changes.names)
