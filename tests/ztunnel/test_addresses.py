"""An address whose text, octets and hash are worked out once is the same address."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from ambient.errors import InvalidInput
from ztunnel.addresses import address_of, host_of, text_of


@pytest.mark.parametrize(
    ("written", "meant", "host"),
    [
        ("10.1.2.3", "10.1.2.3", "10.1.2.3"),
        ("::ffff:10.1.2.3", "10.1.2.3", "10.1.2.3"),
        ("fd00:0::1", "fd00::1", "[fd00::1]"),
        ("fe80::1%eth0", "fe80::1", "[fe80::1]"),
    ],
)
def test_what_is_worked_out_once_is_what_the_standard_library_says(written: str, meant: str, host: str) -> None:
    known, plain = address_of(written), ip_address(meant)
    assert known is address_of(written)
    assert known == plain
    assert {known: 1}[plain] == {plain: 1}[known] == 1
    assert (known.version, known.packed, str(known)) == (plain.version, plain.packed, str(plain))
    assert (known.is_loopback, known.is_private) == (plain.is_loopback, plain.is_private)
    assert text_of(known) == text_of(plain) == meant
    assert host_of(known) == host_of(plain) == host


def test_addresses_of_different_families_are_not_the_same() -> None:
    assert address_of("0.0.0.1") != address_of("::1")


def test_text_that_is_no_address_is_refused() -> None:
    with pytest.raises(InvalidInput):
        address_of("10.1.2")
