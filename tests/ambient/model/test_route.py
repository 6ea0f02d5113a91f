"""Where connections go: the table of routes, what hops carry, what a plan depends on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address

import pytest

from ambient.model.balance import WhyNot
from ambient.model.mesh import Mesh, Value
from ambient.model.outcome import Forward, Hop, PeerLabels, Refuse, ServiceLabels
from ambient.model.route import peer_labels, route
from ambient.model.workload import (
    GatewayAddress,
    Health,
    IpFamilies,
    NamespacedHostname,
    Port,
    Scope,
    Service,
    Workload,
)
from tests.support.builders import behind, mesh, service, to, waypoint, workload
from tests.support.routes import (
    CLIENT,
    DIRECT,
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
    odd = replace(WEB, subject_alt_names=("web.example", *sans[1:], "spiffe://x/y"))
    assert forward(mesh(odd, TWO[0]), "10.96.0.1:80").hops[0].expected == sans
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


class Walked(tuple[Hop, ...]):
    """Hops that count how often somebody goes through them."""

    times = 0

    def __iter__(self) -> Iterator[Hop]:
        self.times += 1
        return super().__iter__()


def test_pick_goes_through_the_hops_once_for_all_connections_of_a_plan() -> None:
    weights = (1, 5, 2, 1, 3)
    hops = Walked(Hop(str(i), 1, weight=weights[i % 5]) for i in range(1000))
    plan = Forward(hops)
    drawn = Counter(plan.pick((i + 0.5) / 24_000) for i in range(24_000))
    assert drawn == {hop: hop.weight * 10 for hop in hops}
    assert hops.times - 1 == 1, "once here, once by the plan"
    assert plan == Forward(tuple(hops)), "what was drawn with is no part of a plan"


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
