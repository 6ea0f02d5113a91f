"""Many address blocks are looked up as trying them one after the other would."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st

from ambient.model.address import IpAddress, IpNetwork
from ambient.model.matching import in_any
from ambient.model.networks import MANY, Networks
from ambient.model.policy import Match

V4 = st.integers(0, 15).map(lambda number: IPv4Address(0x0A00_0000 | number << 28 | number & 3))
V6 = st.integers(0, 15).map(lambda number: IPv6Address(number << 124 | 0x0A00_0000 | number & 3))
ADDRESSES: st.SearchStrategy[IpAddress] = st.one_of(V4, V6)


@st.composite
def blocks(draw: st.DrawFn) -> IpNetwork:
    ip = draw(ADDRESSES)
    return ip_network((ip, draw(st.integers(0, ip.max_prefixlen))), strict=False)


@given(st.lists(blocks(), max_size=40), ADDRESSES)
def test_an_address_is_found_where_one_of_the_blocks_has_it(networks: list[IpNetwork], ip: IpAddress) -> None:
    assert Networks(networks).cover(ip) == any(ip in network for network in networks)


def test_an_address_of_one_family_is_in_no_block_of_the_other() -> None:
    every = Networks([ip_network("0.0.0.0/0")] * 2), Networks([ip_network("::/0")] * 2)
    for text, found in (("10.0.0.1", (True, False)), ("::a00:1", (False, True)), ("::", (False, True))):
        assert tuple(one.cover(ip_address(text)) for one in every) == found


def test_a_match_looks_up_what_are_many_and_is_equal_to_one_that_does_not() -> None:
    many = tuple(ip_network(f"10.0.{number}.0/24") for number in range(MANY + 1))
    match = Match(source_ips=many, not_destination_ips=many, destination_ips=many[:MANY])
    assert isinstance(match.source_ips, Networks)
    assert isinstance(match.not_destination_ips, Networks)
    assert type(match.destination_ips) is tuple
    assert replace(match, destination_ports=(1,)).source_ips is match.source_ips
    assert (match.source_ips, hash(match.source_ips)) == (many, hash(many))
    assert in_any(match.source_ips, ip_address("10.0.8.7"))
    assert not in_any(match.source_ips, ip_address("10.0.9.7"))
