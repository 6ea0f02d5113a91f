"""Ranks and addresses in isolation; the rest of load balancing is in the table of routes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from ipaddress import ip_address
from itertools import product
from operator import attrgetter
from random import Random
from typing import Any

import pytest

from ambient.model.address import Endpoint
from ambient.model.balance import Target, address_of, consider, prefer
from ambient.model.outcome import Forward, Hop, NoRoute, Refuse
from ambient.model.route import _weighted, route
from ambient.model.workload import IpFamilies, LoadBalancing, LoadBalancingMode, Locality, Scope, Workload
from tests.support.builders import behind, mesh, service, workload

V4, V6 = ip_address("10.0.0.1"), ip_address("fd00::1")
SOURCE = workload("client", node="n1", locality=Locality("r1", "z1", "s1"))


@pytest.mark.parametrize(
    ("addresses", "families", "wanted", "expected"),
    [
        ("10.0.0.1,fd00::1", IpFamilies.AUTOMATIC, V4, V4),
        ("10.0.0.1,fd00::1", IpFamilies.AUTOMATIC, V6, V6),
        ("fd00::1,10.0.0.1", IpFamilies.AUTOMATIC, None, V6),
        ("10.0.0.1,fd00::1", IpFamilies.IPV4_ONLY, V6, V4),
        ("10.0.0.1,fd00::1", IpFamilies.IPV6_ONLY, V4, V6),
        ("10.0.0.1", IpFamilies.IPV6_ONLY, V4, None),
        ("10.0.0.1", IpFamilies.DUAL, V6, V4),
        ("", IpFamilies.AUTOMATIC, V4, None),
    ],
)
def test_the_address_of_an_endpoint(addresses: str, families: IpFamilies, wanted: object, expected: object) -> None:
    assert address_of(workload("a", addresses), families, (4, 6), wanted) == expected  # type: ignore[arg-type]


def everywhere() -> list[Workload]:
    """One workload for every combination of sameness and difference."""
    options = product(("", "east"), ("r1", "r2"), ("z1", "z2"), ("s1", "s2"), ("n1", "n2"))
    return [
        replace(workload(f"w{i}"), network=network, locality=Locality(region, zone, subzone), node=node)
        for i, (network, region, zone, subzone, node) in enumerate(options)
    ]


def test_failover_with_network_first_puts_every_local_endpoint_before_every_remote_one() -> None:
    scopes = (Scope.NETWORK, Scope.REGION, Scope.ZONE, Scope.SUBZONE, Scope.NODE)
    left = [Target(one, V4, 80) for one in everywhere()]
    rounds: list[set[str]] = []
    while left:
        kept = prefer(LoadBalancing(LoadBalancingMode.FAILOVER, scopes), left, SOURCE)
        rounds.append({target.workload.network for target in kept})
        left = [target for target in left if target not in kept]
    assert rounds == [{""}] * 5 + [{"east"}] * 5


@pytest.mark.parametrize("scope", list(Scope))
def test_strict_keeps_exactly_those_that_share_the_scope(scope: Scope) -> None:
    targets = [Target(one, V4, 80) for one in [*everywhere(), replace(workload("x"), cluster_id="c2", node="n2")]]
    kept = prefer(LoadBalancing(LoadBalancingMode.STRICT, (scope,)), targets, SOURCE)
    value: Callable[[Workload], str] = {
        Scope.REGION: attrgetter("locality.region"),
        Scope.ZONE: attrgetter("locality.zone"),
        Scope.SUBZONE: attrgetter("locality.subzone"),
        Scope.NODE: attrgetter("node"),
        Scope.CLUSTER: attrgetter("cluster_id"),
        Scope.NETWORK: attrgetter("network"),
    }[scope]
    assert kept == tuple(t for t in targets if value(t.workload) == value(SOURCE))
    assert 0 < len(kept) < len(targets)


def test_for_a_port_that_nobody_has_no_endpoint_is_weighed(monkeypatch: pytest.MonkeyPatch) -> None:
    """There are 65,535 ports, and services with thousands of endpoints: one pod would keep the others waiting."""
    web = service("web", "10.96.0.1", (80, 8080))
    client = workload("client", "10.0.0.9")
    world = mesh(web, client, behind(workload("a", "10.0.1.1"), web, ports=((80, 1), (81, 9090))))
    weighed = 0

    def counted(*arguments: Any, **named: Any) -> tuple[Target, ...]:
        nonlocal weighed
        weighed += 1
        return consider(*arguments, **named)

    monkeypatch.setattr("ambient.model.route.consider", counted)
    for port, known in ((80, True), (81, True), (82, False)):
        weighed = 0
        plan = route(world, client, Endpoint(ip_address("10.96.0.1"), port)).plan
        assert isinstance(plan, Forward) == known
        assert weighed == known
        assert known or plan == Refuse(NoRoute.NO_SERVICE_PORT, f"{web.key} has no port 82")


def test_thousands_of_odd_capacities_are_weighed_in_proportion_and_in_time() -> None:
    """Their common multiple has tens of thousands of digits, with which this went on for minutes."""
    chance = Random(1)
    capacities = [chance.randrange(1 << 20, 1 << 32) for _ in range(4_000)]
    hops = _weighted([(capacity, (Hop("10.0.0.1", 80, weight=capacity),)) for capacity in capacities])
    whole, total = sum(capacities), sum(hop.weight for hop in hops)
    for capacity, hop in zip(capacities, hops, strict=True):
        assert hop.weight / total == pytest.approx(capacity / whole, rel=1e-4)


def test_shares_of_few_are_kept_to_the_digit() -> None:
    two, three = (Hop("10.0.0.1", 80, weight=2), Hop("10.0.0.2", 80, weight=1)), (Hop("10.0.0.3", 80, weight=7),)
    assert [hop.weight for hop in _weighted([(1, two), (2, three)])] == [2, 1, 6]
