"""Layouts and enumerations are those of the C headers; rows and addresses survive the way there and back."""

from __future__ import annotations

import re
from ipaddress import IPv4Address, IPv6Address

import pytest

from ambient.datapath import layout, sources
from ambient.datapath.layout import Counter, FailMode, Flag, PodRow
from ambient.model import deny


def enumerators(text: str, name: str) -> dict[str, int]:
    """The values of a C enumeration, without expressions."""
    body = re.search(rf"enum {name} \{{(.*?)\}};", text, re.DOTALL)
    assert body is not None, name
    found: dict[str, int] = {}
    for entry in re.sub(r"/\*.*?\*/", "", body[1], flags=re.DOTALL).split(","):
        key, _, value = entry.strip().partition(" = ")
        if key:
            found[key] = int(value, 0) if value else max(found.values(), default=-1) + 1
    return found


@pytest.mark.parametrize(
    ("name", "prefix", "mirror"),
    [("counter", "COUNT_", Counter), *((name, *entry) for name, entry in layout.ENUMERATIONS.items())],
)
def test_an_enumeration_has_the_names_and_values_of_the_header(
    name: str, prefix: str, mirror: type[Counter | Flag]
) -> None:
    text = sources.flatten(sources.source_directory() / sources.MAIN)
    theirs = {
        key.removeprefix(prefix): value for key, value in enumerators(text, name).items() if key.startswith(prefix)
    }
    assert theirs == {member.name: member.value for member in mirror}


def test_the_last_counter_is_the_headers_count_of_used_ones() -> None:
    text = sources.flatten(sources.source_directory() / sources.MAIN)
    assert enumerators(text, "counter")["COUNTERS_USED"] == len(Counter)


def test_the_ports_that_are_none_are_those_of_the_header() -> None:
    text = sources.flatten(sources.source_directory() / sources.MAIN)
    wanted = {"DENY_OTHER_PORT": deny.OTHER_PORT, "DENY_ANY_PORT": deny.ANY_PORT, "DENY_TUNNEL": deny.TUNNEL}
    assert enumerators(text, "deny_port") == wanted


def test_a_row_survives_packing() -> None:
    row = PodRow(Flag.CAPTURE_OUT | Flag.DNS, FailMode.OPEN, FailMode.CLOSED, 2**32 - 1, 7)
    assert layout.unpack_row(layout.pack_row(row)) == row


def test_a_mode_that_nobody_knows_does_not_pass_for_closed() -> None:
    raw = layout.pod_row.from_buffer_copy(layout.pack_row(PodRow()))
    raw.fail_in, raw.fail_out = 7, 2**31
    assert layout.unpack_row(bytes(raw)) == PodRow(fail_in=FailMode.OPEN, fail_out=FailMode.OPEN)


def test_the_default_row_captures_nothing_and_fails_closed() -> None:
    assert layout.pack_row(PodRow()) == bytes(20)
    assert (FailMode.CLOSED, Flag(0)) == (PodRow().fail_in, PodRow().flags)


@pytest.mark.parametrize(
    ("ip", "data"),
    [
        (IPv4Address("10.0.0.1"), bytes(10) + b"\xff\xff\x0a\x00\x00\x01"),
        (IPv6Address("::ffff:10.0.0.1"), bytes(10) + b"\xff\xff\x0a\x00\x00\x01"),
        (IPv6Address("fd00::1"), b"\xfd" + bytes(14) + b"\x01"),
    ],
)
def test_an_address_is_its_sixteen_bytes(ip: IPv4Address | IPv6Address, data: bytes) -> None:
    assert layout.pack_address(ip) == data
    assert layout.pack_address(layout.unpack_address(data)) == data
