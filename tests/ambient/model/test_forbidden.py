"""Addresses that nobody is sent to, and where names may lead that clients choose."""

from __future__ import annotations

import pytest

from ambient.errors import InvalidInput
from ambient.model.forbidden import Reach, forbidden, nowhere, read_reach


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "127.9.9.9", "::1", "0.0.0.0", "0.1.2.3", "::", "169.254.169.254", "fe80::1%eth0", "224.0.0.1"),
        *("ff02::1", "100.100.100.200", "168.63.129.16", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254"),
        *("::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1", "::127.0.0.1", "::ffff:0:a9fe:a9fe"),
    ],
)
def test_addresses_that_are_forbidden(address: str) -> None:
    assert forbidden(address)


@pytest.mark.parametrize(
    "address", ["10.96.0.1", "192.0.2.1", "8.8.8.8", "2001:db8::1", "fd00:1::1", "64:ff9b::808:808"]
)
def test_addresses_that_are_not(address: str) -> None:
    assert forbidden(address) == ""


@pytest.mark.parametrize("name", ["localhost", "a.localhost.", "Metadata.google.internal", "1.2.3", "x.0x7f"])
def test_names_of_nobodys_endpoints(name: str) -> None:
    assert nowhere(name)
    assert not nowhere("api.example.com")


@pytest.mark.parametrize(
    "address",
    [
        *("10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1", "240.240.0.1", "198.18.0.1", "192.0.2.1"),
        *("fd00::1", "2001:db8::1", "2001:2::1", "fec0::1", "64:ff9b:1::a00:1", "64:ff9b::a00:1", "::ffff:10.0.0.1"),
        *("127.0.0.1", "169.254.169.254", "fe80::1", "224.0.0.1", "2002:a00:1::1", "::10.0.0.1", "::ffff:0:a00:1"),
        *("192.0.0.9", "192.0.0.1", "2001:20::1", "3fff::1", "5f00::1", "4000::1", "1000::1", "e000::1"),
    ],
)
def test_names_lead_to_nobodys_own_addresses(address: str) -> None:
    assert Reach().refusal(address)


@pytest.mark.parametrize("address", ["8.8.8.8", "2606:4700::1111", "64:ff9b::808:808", "::ffff:8.8.8.8"])
def test_names_lead_to_the_internet_but_for_networks_that_are_taken_out(address: str) -> None:
    assert Reach().refusal(address) == ""
    assert "not to lead to" in read_reach("!8.0.0.0/8, !2606::/16").refusal(address)


def test_networks_are_added_and_never_what_is_forbidden_to_all() -> None:
    reach = read_reach("10.20.0.0/16, fd00:1::/32,127.0.0.0/8, !10.20.9.0/24")
    assert [reach.refusal(one) for one in ("10.20.1.1", "fd00:1::5", "::ffff:10.20.1.1")] == [""] * 3
    assert all(reach.refusal(one) for one in ("10.21.0.1", "10.20.9.1", "127.0.0.1", "fd00:ec2::254"))


@pytest.mark.parametrize("text", ["10.0.0.0/33", "example.com", "10.0.0.0/8;", "!!10.0.0.0/8"])
def test_what_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput, match="is no network"):
        read_reach(text)
