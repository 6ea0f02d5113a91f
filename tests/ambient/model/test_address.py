"""Addresses and endpoints as text."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from ambient.errors import InvalidInput
from ambient.model.address import Endpoint, canonical, parse_endpoint, parse_ip


@pytest.mark.parametrize(
    ("text", "ip", "port"),
    [
        ("10.0.0.1:80", "10.0.0.1", 80),
        ("[fd00::1]:65535", "fd00::1", 65535),
        ("[::ffff:10.0.0.1]:1", "10.0.0.1", 1),
        ("[10.0.0.1]:80", "10.0.0.1", 80),
    ],
)
def test_endpoints_are_read_and_written(text: str, ip: str, port: int) -> None:
    assert parse_endpoint(text) == Endpoint(ip_address(ip), port)
    assert parse_endpoint(str(parse_endpoint(text))) == parse_endpoint(text)


@pytest.mark.parametrize(
    "text",
    [
        *("", "10.0.0.1", "10.0.0.1:", "10.0.0.1:0", "10.0.0.1:65536", "10.0.0.1:080000", "10.0.0.1:٣"),
        *("10.0.0.1:-1", "fd00::1:80", "[fd00::1]", "[fd00::1:80", "host:80", "10.0.0:80", ":80", "10.0.0.1:8 0"),
        pytest.param(f"10.0.0.1:{'9' * 5_000}", id="more digits than int() reads"),
    ],
)
def test_what_is_no_endpoint_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="not an"):
        parse_endpoint(text)


def test_a_mapped_address_is_its_ipv4_address() -> None:
    assert parse_ip("::ffff:10.0.0.1") == ip_address("10.0.0.1")
    assert canonical(ip_address("fd00::1")) == ip_address("fd00::1")


@pytest.mark.parametrize("text", ["", "x", "10.0.0", "10.0.0.1/8", "010.0.0.1"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_ip(text)
