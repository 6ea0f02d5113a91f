"""Where connections go: the table of routes, what hops carry, what a plan depends on."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from ipaddress import ip_address

import pytest

from ambient.model.balance import WhyNot
from ambient.model.mesh import Mesh, Value
from ambient.model.outcome import Forward, Hop, PeerLabels, Refuse, ServiceLabels
from ambient.model.route import peer_labels, route
from ambient.model.waypoints import open_ports, waypoint_principals
from ambient.model.workload import (
    GatewayAddress,
    Health,
    IpFamilies,
    Locality,
    NamespacedHostname,
    Port,
    Scope,
    Service,
    TunnelProtocol,
    Workload,
)
from tests.support.builders import behind, mesh, service, to, waypoint, workload
from tests.support.routes import (
    BY_IP,
    CLIENT,
    DIRECT,
    EVERYWHERE,
    FAILOVER,
    GUARDED,
    LABELS,
    PEER,
    PLAIN,
    SICK,
    STRICT,
    TWO,
    WEB,
    WP,
    WP_POD,
    Case,
    balanced,
    cidr,
    ends,
    shown,
    weighted,
)
from tests.support.routes_gateways import (
    BY_NAME,
    EAST_GW,
    GATEWAY_ODDITIES,
    GATEWAYS,
    GLOBAL,
    GW,
    GW_PODS,
    NAMED,
    SANS,
    WP_AWAY,
    WP_GLOBAL,
    split,
)
from tests.support.routes_rivals import DOUBTS, RIVALS
from tests.support.routes_services import BALANCING, SERVICES
from tests.support.routes_waypoints import WAYPOINTS

TABLES = (DIRECT, SERVICES, BALANCING, WAYPOINTS, GATEWAYS, GATEWAY_ODDITIES, RIVALS, DOUBTS)
TABLE = {name: case for table in TABLES for name, case in table.items()}


@pytest.mark.parametrize("case", TABLE.values(), ids=TABLE.keys())
def test_routes(case: Case) -> None:
    world = mesh(*case.world)
    routed = route(world, case.source, to(case.dial), network=case.network, registry_only=case.registry_only)
    assert shown(routed) == case.expect


def test_no_two_rows_have_the_same_name() -> None:
    assert len(TABLE) == sum(map(len, TABLES))
    assert len(TABLE) >= 210


def forward(world: Mesh, dial: str) -> Forward:
    plan = route(world, CLIENT, to(dial)).plan
    assert isinstance(plan, Forward)
    return plan


def test_a_hop_expects_the_endpoints_identity_or_a_name_of_the_service() -> None:
    sans = ("spiffe://cluster.local/ns/default/sa/a", "spiffe://cluster.local/ns/default/sa/spare")
    (hop,) = forward(mesh(replace(WEB, subject_alt_names=sans), TWO[0]), "10.96.0.1:80").hops
    assert hop.expected == sans
    (direct,) = forward(mesh(PEER), "10.0.0.2:80").hops
    assert direct.expected == ("spiffe://cluster.local/ns/default/sa/peer",)
    (plain,) = forward(mesh(PLAIN), "10.0.0.3:80").hops
    assert plain.expected == ()


def test_a_hop_to_a_waypoint_expects_the_waypoint() -> None:
    (hop,) = forward(
        mesh(GUARDED, replace(WP, subject_alt_names=("spiffe://x/ns/y/sa/z",)), WP_POD), "10.96.0.1:80"
    ).hops
    assert hop.expected == ("spiffe://cluster.local/ns/default/sa/wp", "spiffe://x/ns/y/sa/z")
    assert hop.through_waypoint
    assert hop.labels == peer_labels(WP_POD)


def test_a_hop_to_another_network_expects_the_gateway_and_inside_only_the_names_of_the_service() -> None:
    own = replace(GW, subject_alt_names=("spiffe://x/ns/y/sa/z",))
    named = replace(split(), network_gateway=BY_NAME)
    first, _ = forward(mesh(GLOBAL, named, own, *GW_PODS), "10.96.0.1:80").hops
    assert first.expected == ("spiffe://cluster.local/ns/default/sa/gw-2", "spiffe://x/ns/y/sa/z")
    assert first.inner == SANS
    assert first.labels == replace(peer_labels(named), principal="")
    (direct,) = forward(mesh(GLOBAL, TWO[0]), "10.96.0.1:80").hops
    assert direct.inner == ()


def test_shares_between_networks_follow_capacity_however_many_gateways_there_are() -> None:
    plan = forward(mesh(GLOBAL, TWO[0], replace(split(BY_NAME), capacity=6), GW, *GW_PODS), "10.96.0.1:80")
    assert {hop.ip: hop.weight for hop in plan.hops} == {"10.0.1.1": 1, "192.0.2.2": 3, "192.0.2.3": 3}


def test_a_waypoint_on_another_network_is_believed_by_its_names_and_the_services() -> None:
    world = mesh(replace(GLOBAL, waypoint=waypoint()), WP_GLOBAL, WP_AWAY, EAST_GW)
    (hop,) = forward(world, "10.96.0.1:80").hops
    assert hop.inner == (*WP_GLOBAL.subject_alt_names, *SANS)
    assert hop.through_waypoint


def test_a_hop_known_by_name_is_complete_at_an_address() -> None:
    (hop,) = forward(mesh(WEB, *ends("a ", hostname="db.example")), "10.96.0.1:80").hops
    assert (hop.ip, hop.hostname) == ("", "db.example")
    there = hop.at(ip_address("2001:db8::1"))
    assert (there.ip, there.port, there.authority) == ("2001:db8::1", 15008, "[2001:db8::1]:8080")
    assert there.hostname == ""
    (gateway,) = forward(
        mesh(
            GLOBAL,
            split(NAMED),
            replace(EAST_GW, hostname="gw.example", addresses=()),
        ),
        "10.96.0.1:80",
    ).hops
    assert gateway.at(ip_address("203.0.113.9")).authority == "web.default.svc.cluster.local:80"
    waypoint_by_name = replace(WP_POD, hostname="wp.example", addresses=())
    (through,) = forward(mesh(GUARDED, WP, waypoint_by_name), "10.96.0.1:80").hops
    assert through.at(ip_address("203.0.113.9")).authority == "10.96.0.1:80"


def test_a_plan_carries_the_service_and_the_peers_labels() -> None:
    plan = forward(mesh(WEB, TWO[0]), "10.96.0.1:80")
    assert plan.service == LABELS
    assert plan.hops[0].labels == peer_labels(TWO[0])
    assert forward(mesh(PEER), "10.0.0.2:80").service == ServiceLabels()


def test_labels_of_a_workload() -> None:
    assert peer_labels(CLIENT) == PeerLabels(
        workload="client",
        pod="client",
        namespace="default",
        canonical_service="client",
        canonical_revision="v1",
        principal="spiffe://cluster.local/ns/default/sa/client",
        cluster="Kubernetes",
        region="r1",
        zone="z1",
    )


@pytest.mark.parametrize(
    ("share", "capacities", "expected"),
    [
        ((90, 10), (1, 1), {"10.0.9.1": 9, "10.0.9.3": 1}),
        ((50, 50), (1, 1), {"10.0.9.1": 1, "10.0.9.3": 1}),
        ((90, 10), (3, 1), {"10.0.9.1": 9, "10.0.9.3": 1}),
    ],
)
def test_canary_weights_hold_whatever_the_capacities(
    share: tuple[int, int], capacities: tuple[int, int], expected: dict[str, int]
) -> None:
    canary = service("canary", "10.96.0.8", (15008, 15008))
    world = mesh(
        weighted(("wp", share[0]), ("canary", share[1])),
        WP,
        canary,
        replace(WP_POD, capacity=capacities[0]),
        behind(workload("canary", "10.0.9.3", capacity=capacities[1]), canary),
    )
    assert {hop.ip: hop.weight for hop in forward(world, "10.96.0.1:80").hops} == expected


def test_pick_draws_by_weight() -> None:
    plan = Forward((Hop("a", 1, weight=1), Hop("b", 1, weight=3)))
    drawn = Counter(plan.pick(i / 1000).ip for i in range(1000))
    assert drawn == {"a": 250, "b": 750}
    assert plan.pick(0.9999999999999999).ip == "b"


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


PASSED_OVER: dict[WhyNot, tuple[Service, Workload]] = {
    WhyNot.REFUSED: (WEB, replace(TWO[1], refused="junk")),
    WhyNot.UNHEALTHY: (WEB, replace(TWO[1], status=Health.UNHEALTHY)),
    WhyNot.NO_PORT: (
        replace(WEB, ports=(Port(80, 0),)),
        replace(TWO[1], services={WEB.key: ()}),
    ),
    WhyNot.NO_CAPACITY: (WEB, replace(TWO[1], capacity=0)),
    WhyNot.NO_ADDRESS: (WEB, replace(TWO[1], addresses=())),
    WhyNot.NOT_A_FAMILY_OF_THE_SERVICE: (
        replace(WEB, ip_families=IpFamilies.IPV4_ONLY),
        replace(TWO[1], addresses=(ip_address("fd01::1"),)),
    ),
    WhyNot.NOT_A_FAMILY_OF_THE_CLIENT: (WEB, replace(TWO[1], addresses=(ip_address("fd01::1"),))),
    WhyNot.NO_GATEWAY: (WEB, replace(TWO[1], network="east")),
    WhyNot.OUTSIDE: (balanced(STRICT, Scope.NODE), replace(TWO[1], node="n2")),
    WhyNot.FARTHER: (balanced(FAILOVER, Scope.NODE), replace(TWO[1], node="n2")),
}


@pytest.mark.parametrize("why", WhyNot)
def test_an_endpoint_that_is_passed_over_comes_with_its_reason(why: WhyNot) -> None:
    one, passed = PASSED_OVER[why]
    client = replace(CLIENT, addresses=CLIENT.addresses[:1])
    first = behind(workload("a", "10.0.1.1"), one, ports=((80, 8080),))
    routed = route(mesh(one, first, passed), client, to("10.96.0.1:80"))
    assert isinstance(routed.plan, Forward)
    assert [hop.ip for hop in routed.plan.hops] == ["10.0.1.1"]
    assert [(target.workload, target.why) for target in routed.passed_over] == [(passed, why)]
    alone = route(mesh(one, passed), client, to("10.96.0.1:80")).plan
    assert isinstance(alone, Refuse) == (why is not WhyNot.FARTHER)


@pytest.mark.parametrize(
    ("world", "dial", "detail"),
    [
        ((WEB,), "10.96.0.1:80", f"{WEB.key} has no endpoint for port 80: it has none at all"),
        (
            (WEB, *SICK, *ends("d 10.0.1.4", status=Health.UNHEALTHY), *ends("e 10.0.1.5", capacity=0)),
            "10.96.0.1:80",
            f"{WEB.key} has no endpoint for port 80: 2x it is not ready, or leaving, 1x its capacity is 0",
        ),
        ((WEB,), "10.96.0.1:81", f"{WEB.key} has no port 81"),
        (
            (GLOBAL, split(BY_NAME), GW),
            "10.96.0.1:80",
            f"gateway of network 'east': {GW.key} has no endpoint for port 15008: it has none at all",
        ),
        ((replace(PEER, refused="junk"),), "10.0.0.2:80", f"workload {PEER.uid}: junk"),
    ],
)
def test_a_refusal_says_what_was_found(world: tuple[Value, ...], dial: str, detail: str) -> None:
    plan = route(mesh(*world), CLIENT, to(dial)).plan
    assert isinstance(plan, Refuse)
    assert plan.detail == detail


def test_shares_of_odd_capacities_stay_numbers_that_travel() -> None:
    odd = (10007, 10009, 10037, 10039, 10061, 10067, 10069, 10079)
    worlds: list[Value] = [GLOBAL, TWO[0]]
    for number, capacity in enumerate(odd):
        gw = service(f"gw{number}", "", (15008, 15008))
        gateway = GatewayAddress(NamespacedHostname("default", gw.hostname))
        uid = f"east{number}/SplitHorizonWorkload/x"
        worlds += [gw, replace(split(gateway), uid=uid, capacity=number + 1)]
        worlds += [
            behind(workload(f"p{number}{n}", f"192.0.{number}.{n}", network="east", capacity=capacity + n), gw)
            for n in (1, 2)
        ]
    hops = forward(mesh(*worlds), "10.96.0.1:80").hops
    assert len(hops) == 17
    assert 1 <= min(hop.weight for hop in hops) <= max(hop.weight for hop in hops) < 1 << 32
    shares = {n: sum(hop.weight for hop in hops if hop.ip.startswith(f"192.0.{n}.")) for n in range(8)}
    assert all(abs(shares[n] / shares[0] - (n + 1)) < 0.001 for n in range(8))


def test_what_has_nothing_to_do_with_a_plan_does_not_touch_it() -> None:
    view = mesh(WEB, *TWO, GUARDED)
    depends = route(view, CLIENT, to("10.96.0.1:80")).depends
    changes = view.apply([workload("stranger", "10.0.7.7"), service("stranger", "10.96.7.7")])
    assert depends.isdisjoint(changes.names)


@pytest.mark.parametrize(
    ("world", "pod", "expected"),
    [
        ((WEB,), TWO[0], ()),
        ((GUARDED, WP, WP_POD), TWO[0], ("spiffe://cluster.local/ns/default/sa/wp",)),
        ((GUARDED,), TWO[0], ("",)),
        ((GUARDED, WP), TWO[0], ("",)),
        ((), replace(PEER, waypoint=BY_IP), ("",)),
        ((WP_POD,), replace(PEER, waypoint=BY_IP), ("spiffe://cluster.local/ns/default/sa/wp",)),
        (
            (replace(WP, subject_alt_names=("spiffe://a/ns/b/sa/c",)),),
            replace(PEER, waypoint=waypoint()),
            ("spiffe://a/ns/b/sa/c",),
        ),
        ((WP, WP_POD), WP_POD, ()),
    ],
)
def test_only_its_waypoints_may_come_in(world: tuple[Value, ...], pod: Workload, expected: tuple[str, ...]) -> None:
    assert waypoint_principals(mesh(*world), pod) == expected


BARE = service("bare", "10.96.0.5", (80, 8080), (90, 9090))
OTHER = service("other", "10.96.0.6", (443, 0))
OWN_WAYPOINT = replace(TWO[0], waypoint=waypoint())


@pytest.mark.parametrize(
    ("world", "pod", "expected"),
    [
        ((WEB,), OWN_WAYPOINT, (8080,)),
        ((WEB, BARE), behind(OWN_WAYPOINT, BARE), (8080, 9090)),
        ((WEB, BARE), behind(workload("a", "10.0.1.1"), WEB, BARE, ports=((80, 7777),)), (7777, 9090)),
        ((OTHER,), behind(workload("a", "10.0.1.1"), OTHER, ports=((443, 8443),)), (8443,)),
        ((OTHER,), behind(workload("a", "10.0.1.1"), OTHER), ()),
        ((GUARDED, WP), OWN_WAYPOINT, ()),
        ((GUARDED, WP, BARE), behind(OWN_WAYPOINT, BARE), ()),
        ((weighted(("wp", 1)),), OWN_WAYPOINT, ()),
        ((BARE,), behind(OWN_WAYPOINT, BARE), ()),
        ((replace(WEB, refused="junk"),), OWN_WAYPOINT, ()),
    ],
)
def test_ports_of_services_without_a_waypoint_stay_open(
    world: tuple[Value, ...], pod: Workload, expected: tuple[int, ...]
) -> None:
    assert open_ports(mesh(*world), pod) == expected


def test_what_cannot_be_judged_lets_nobody_in_and_what_cannot_be_dialled_keeps_nobody_out() -> None:
    unread = replace(WEB, refused="junk")
    assert waypoint_principals(mesh(unread), TWO[0]) == ("",)
    headless = replace(GUARDED, addresses=())
    assert waypoint_principals(mesh(headless, WP, WP_POD), TWO[0]) == ()
    assert open_ports(mesh(headless, WP), OWN_WAYPOINT) == (8080,)


def test_what_stands_for_another_network_is_nobodys_waypoint() -> None:
    assert waypoint_principals(mesh(GUARDED, WP, WP_AWAY), TWO[0]) == ("",)
    assert waypoint_principals(mesh(GUARDED, WP, replace(WP_POD, refused="junk")), TWO[0]) == ("",)
