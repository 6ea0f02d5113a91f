from __future__ import annotations

from ipaddress import ip_address
from itertools import combinations

import pytest

from ambient.errors import Refused
from ambient.lab.addresses import MAX_LABS, MAX_NODES, Plan, free_index, free_node_number
from ambient.model.address import IpNetwork


def _networks(plan: Plan) -> list[IpNetwork]:
    found: list[IpNetwork] = [*plan.underlay.both(), *plan.services.both()]
    for number in (1, 2, MAX_NODES):
        found += plan.pods(number).both()
    return found


def test_no_range_of_any_lab_overlaps_another() -> None:
    every = [network for index in (0, 1, MAX_LABS - 1) for network in _networks(Plan(index))]
    for one, other in combinations(every, 2):
        if one.version == other.version:
            assert not one.overlaps(other), (one, other)  # type: ignore[arg-type]


def test_every_single_address_lies_in_its_range() -> None:
    plan = Plan(5)
    for number in (1, MAX_NODES):
        assert all(ip in plan.underlay for ip in plan.node(number).both())
        assert plan.gateway(number) in plan.pods(number)
    assert all(ip in plan.services for ip in plan.dns.both())
    assert all(ip in plan.underlay for ip in plan.control.both())
    assert plan.control.v4 not in {plan.node(number).v4 for number in range(1, MAX_NODES + 1)}


def test_addresses_are_given_in_pairs_and_until_none_is_left() -> None:
    plan = Plan(0)
    taken = {plan.pods(1).v4[2], plan.pods(1).v6[3]}
    assert str(plan.free_pod_address(1, taken).v4) == "10.64.1.4"
    every = set(plan.pods(1).v4)
    with pytest.raises(Refused, match="no address is left"):
        plan.free_pod_address(1, every)


def test_service_addresses_leave_the_first_ones_alone() -> None:
    plan = Plan(0)
    first = plan.free_service_address(set())
    assert str(first.v4) == "10.192.1.0"
    assert plan.free_service_address({first.v4}).v4 == ip_address("10.192.1.1")
    with pytest.raises(Refused, match="all Service addresses are taken"):
        plan.free_service_address(set(plan.services.v4))


def test_a_node_is_known_by_its_range() -> None:
    plan = Plan(3)
    assert plan.node_number([str(network) for network in plan.pods(17).both()]) == 17
    with pytest.raises(Refused):
        plan.node_number(["192.168.0.0/24"])


def test_the_lowest_free_number_is_taken_until_none_is_left() -> None:
    assert free_index({0, 1, 3}) == 2
    assert free_node_number({1, 2}) == 3
    with pytest.raises(Refused):
        free_index(set(range(MAX_LABS)))
    with pytest.raises(Refused):
        free_node_number(set(range(1, MAX_NODES + 1)))
