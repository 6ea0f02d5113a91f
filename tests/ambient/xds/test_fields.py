"""Readers of single fields: exact at every edge."""

from __future__ import annotations

from enum import IntEnum
from ipaddress import ip_address, ip_network

import pytest

from ambient.errors import InvalidInput
from ambient.xds.fields import read_enum, read_ip, read_network, read_port, unknown_field
from tests.support.discovery import STRANGE_FIELD, policy_wire


class Colour(IntEnum):
    RED = 0
    BLUE = 1


@pytest.mark.parametrize("text", ["10.0.0.1", "fd00::1", "::", "0.0.0.0", "::1"])
def test_addresses_of_4_and_16_bytes(text: str) -> None:
    assert read_ip(ip_address(text).packed, "f") == ip_address(text)


@pytest.mark.parametrize("length", [0, 1, 3, 5, 15, 17])
def test_addresses_of_other_lengths_are_refused(length: int) -> None:
    with pytest.raises(InvalidInput, match=f"f has {length} bytes"):
        read_ip(bytes(length), "f")
    with pytest.raises(InvalidInput, match=f"f has {length} bytes"):
        read_network(bytes(length), 0, "f")


@pytest.mark.parametrize(
    ("address", "length", "network"),
    [
        ("10.1.2.3", 32, "10.1.2.3/32"),
        ("10.1.2.3", 0, "0.0.0.0/0"),
        ("fd00::1", 128, "fd00::1/128"),
        ("fd00::1", 0, "::/0"),
        ("::ffff:10.1.2.3", 128, "10.1.2.3/32"),
        ("::ffff:10.1.2.3", 96, "0.0.0.0/0"),
        ("::ffff:10.1.2.3", 95, "::fffe:0:0/95"),
    ],
)
def test_networks(address: str, length: int, network: str) -> None:
    assert read_network(ip_address(address).packed, length, "f") == ip_network(network)


@pytest.mark.parametrize(("size", "length"), [(4, 33), (16, 129), (4, 2**32 - 1)])
def test_prefixes_that_are_too_long_are_refused(size: int, length: int) -> None:
    with pytest.raises(InvalidInput, match="prefix length"):
        read_network(bytes(size), length, "f")


def test_a_number_that_an_enum_does_not_have_is_refused_and_never_the_default() -> None:
    assert read_enum(Colour, 1, "f") is Colour.BLUE
    for number in (2, -1, 2**31 - 1):
        with pytest.raises(InvalidInput, match=r"f .* is unknown"):
            read_enum(Colour, number, "f")


def test_ports() -> None:
    assert read_port(65535, "f") == 65535
    with pytest.raises(InvalidInput, match="f 65536 is no port"):
        read_port(65536, "f")


def test_unknown_fields_are_found_with_their_path() -> None:
    wire = policy_wire()
    assert unknown_field(wire) == ""
    wire.rules[0].clauses[0].MergeFromString(STRANGE_FIELD)
    assert unknown_field(wire) == "rules.clauses field 126"
    wire.MergeFromString(STRANGE_FIELD)
    assert unknown_field(wire) == "top level field 126"
