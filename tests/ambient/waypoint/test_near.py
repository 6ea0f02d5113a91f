"""Which endpoints a proxy prefers by where it is; and that none is ever left out."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambient.kube.traffic_values import Balancer, Spread, TrafficPolicy
from ambient.model.workload import Locality, Scope
from ambient.waypoint.front import Backend, FrontPort, Place, Protocol
from ambient.waypoint.near import depends, groups
from ambient.waypoint.resources import resources
from ambient.waypoint.typed import CLUSTER_TYPE, ENDPOINT_TYPE
from ambient.waypoint.wire import encode
from tests.support.waypoint_views import TUNNEL, front, view

HERE = Place("n1", Locality("r1", "z1", "s1"))
CLOSE = (Scope.NETWORK, Scope.REGION, Scope.ZONE)


def at(locality: str, node: str = "", number: int = 1) -> Backend:
    region, zone, subzone = (*locality.split("/"), "", "")[:3]
    address = ip_address("10.1.0.0") + number
    return Backend(address, 80, TUNNEL.identity, locality, node=node, locality=Locality(region, zone, subzone))


EVERY = [at(one) for one in ("r1/z1/s1", "r1/z1/s2", "r1/z2", "r2/z1", "r3/z1")]


def found(spread: Spread | None = None, near: tuple[Scope, ...] = (), backends: list[Backend] = EVERY) -> list[str]:
    """Of each group its priority, its share and who is in it."""
    made = groups(backends, near, spread, HERE)
    return [f"{one.priority} {one.share} {' '.join(backend.workload for backend in one.backends)}" for one in made]


ALL = "r1/z1/s1 r1/z1/s2 r1/z2 r2/z1 r3/z1"
OUT = ("r1/z1/s1 r1/z1/s2", "r1/z2", "r2/z1 r3/z1")


@pytest.mark.parametrize(
    ("spread", "near", "expected"),
    [
        (None, (), [f"0 0 {ALL}"]),
        (None, CLOSE, [f"0 0 {OUT[0]}", f"1 0 {OUT[1]}", f"2 0 {OUT[2]}"]),
        (Spread(enabled=False), CLOSE, [f"0 0 {ALL}"]),
        (Spread(), (), ["0 0 r1/z1/s1", "1 0 r1/z1/s2", f"2 0 {OUT[1]}", f"3 0 {OUT[2]}"]),
        (
            Spread(failover=(("r1", "r3"),)),
            (),
            ["0 0 r1/z1/s1", "1 0 r1/z1/s2", "2 0 r1/z2", "3 0 r3/z1", "4 0 r2/z1"],
        ),
        (Spread(priority=("region",)), (), ["0 0 r1/z1/s1 r1/z1/s2 r1/z2", "1 0 r2/z1 r3/z1"]),
        (
            Spread(distribute=(("r1/*", (("r1/z1", 70), ("r1", 10), ("r2", 20))),)),
            (),
            ["0 70 r1/z1/s1 r1/z1/s2", "0 10 r1/z2", "0 20 r2/z1", "1 1 r3/z1"],
        ),
        (Spread(distribute=(("r9", (("r1", 100),)),)), CLOSE, [f"0 1 {ALL}"]),
        (Spread(distribute=(("r1", (("r9", 100),)),)), (), [f"0 1 {ALL}"]),
    ],
)
def test_who_is_asked_first(spread: Spread | None, near: tuple[Scope, ...], expected: list[str]) -> None:
    assert found(spread, near) == expected


def test_the_proxys_own_node_goes_first_where_that_is_asked_for() -> None:
    backends = [at("r1/z1/s1", "n2"), at("r1/z1/s1", "n1")]
    assert [one.backends[0].node for one in groups(backends, (Scope.NODE,), None, HERE)] == ["n1", "n2"]


def test_when_the_near_ones_have_gone_the_far_ones_are_the_first() -> None:
    assert found(None, CLOSE, EVERY[3:]) == [f"0 0 {OUT[2]}"]


PARTS = st.sampled_from(("r1", "r2", "z1", "z2", ""))
LOCALITIES = st.builds(lambda *parts: "/".join(parts), PARTS, PARTS, PARTS)
NAMED = st.sampled_from(("r1", "r1/z1", "r1/z1/*", "r2", "*", "r2/z2"))
SPREADS = st.one_of(
    st.none(),
    st.builds(Spread, enabled=st.booleans()),
    st.builds(Spread, failover=st.just((("r1", "r2"),))),
    st.builds(
        Spread, priority=st.lists(st.sampled_from(("region", "zone", "subzone", "node")), unique=True).map(tuple)
    ),
    st.builds(
        lambda here, to: Spread(distribute=((here, tuple((one, 1) for one in to)),)),
        NAMED,
        st.lists(NAMED, min_size=1, unique=True),
    ),
)


@given(
    st.lists(LOCALITIES, max_size=8),
    st.lists(st.sampled_from(list(Scope)), max_size=4, unique=True),
    SPREADS,
    st.one_of(st.none(), st.just(HERE)),
)
def test_no_endpoint_is_lost_and_priorities_have_no_holes(
    localities: list[str], near: list[Scope], spread: Spread | None, place: Place | None
) -> None:
    backends = [at(one, f"n{number % 2}", number + 1) for number, one in enumerate(localities)]
    made = groups(backends, tuple(near), spread, place)
    assert sorted(str(one.address) for group in made for one in group.backends) == sorted(
        str(one.address) for one in backends
    )
    priorities = [one.priority for one in made]
    assert sorted(set(priorities)) == list(range(len(set(priorities))))
    assert priorities == sorted(priorities)
    if spread is not None and spread.enabled and spread.distribute:
        assert all(one.share for one in made)


def test_what_envoy_is_told_has_the_priorities_and_shares() -> None:
    shares = Spread(distribute=(("r1", (("r1", 90), ("r2", 10))),))
    traffic = TrafficPolicy(balancer=Balancer(spread=shares))
    ports = (
        FrontPort(80, Protocol.HTTP, tuple(EVERY), traffic),
        FrontPort(81, Protocol.HTTP, tuple(EVERY), near=CLOSE),
    )
    told = replace(view(front(ports=ports)), place=HERE)
    assert depends(told)
    assert not depends(view(front()))
    made = {(url, name): content for url, name, content in resources(told)}
    for (url, name), content in made.items():
        encode(url, name, content)
    name = "inbound-vip|80|http|web.shop.svc.cluster.local"
    assert made[CLUSTER_TYPE, name]["common_lb_config"]["locality_weighted_lb_config"] == {}
    weights = [one["load_balancing_weight"] for one in made[ENDPOINT_TYPE, name]["endpoints"]]
    assert weights == [90, 10, 1]
    near = made[ENDPOINT_TYPE, name.replace("|80|", "|81|")]["endpoints"]
    assert [one.get("priority", 0) for one in near] == [0, 1, 2]
