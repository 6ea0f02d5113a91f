"""Whose an address is; who joins with one of somebody else's is in test_join.py."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from ambient.control.join_address import Arrivals, check_address, doubles
from ambient.errors import InvalidInput, Refused
from ambient.kube.networking import Endpoint, ServiceEntry, WorkloadEntry
from ambient.kube.objects import Records
from ambient.model.address import parse_ip

ADDRESS = parse_ip("192.0.2.7")


def entry(name: str, address: str, created: str = "", network: str = "") -> WorkloadEntry:
    return WorkloadEntry(
        name=name, namespace="shop", created=created, endpoint=Endpoint(address=address, network=network)
    )


def test_a_wider_range_of_a_service_entry_and_an_entry_that_goes_hold_no_address() -> None:
    wide = ServiceEntry(name="wide", namespace="shop", addresses=(ip_network("192.0.2.0/24"),))
    going = WorkloadEntry(name="old", namespace="shop", deleting=True, endpoint=Endpoint(address=str(ADDRESS)))
    check_address(ADDRESS, Records(by_key={one.key: one for one in (wide, going)}))
    single = ServiceEntry(name="one", namespace="shop", addresses=(ip_network("192.0.2.7/32"),))
    with pytest.raises(Refused, match="ServiceEntry/shop/one"):
        check_address(ADDRESS, Records(by_key={single.key: single}))
    with pytest.raises(InvalidInput):
        check_address(parse_ip("127.0.0.1"), Records())


def test_of_two_entries_with_one_address_in_one_network_the_younger_is_a_double() -> None:
    old, new = entry("b", "192.0.2.7", "2026-01-01T00:00:00Z"), entry("a", "192.0.2.7", "2026-01-02T00:00:00Z")
    assert doubles([new, old, entry("c", "192.0.2.8"), entry("d", "192.0.2.7", network="far")]) == [(new, old)]


def test_an_arrival_holds_its_address_until_it_is_seen_given_back_or_late() -> None:
    arrivals = Arrivals(60)
    for known, back, now in (({"one": 1}, "", 1.0), ({}, str(ADDRESS), 1.0), ({}, "", 61.0)):
        arrivals.take(ADDRESS, "one", {}, 0.0)
        with pytest.raises(Refused, match="is that of one"):
            arrivals.take(ADDRESS, "two", {}, 1.0)
        arrivals.give_back(back)
        arrivals.take(ADDRESS, "two", known, now)
        arrivals.give_back(str(ADDRESS))
