"""What is read without ctypes says what the layout says."""

from __future__ import annotations

from socket import htons

from ambient.datapath import direct, layout
from ambient.datapath.direct import Call, Tuple, Way
from ambient.datapath.layout import WayFlag
from ambient.model.address import parse_endpoint, parse_ip

ONE = Tuple(parse_endpoint("10.0.0.4:40000"), parse_endpoint("[fd00::5]:80"))


def test_a_key_comes_back_as_it_was_put() -> None:
    assert direct._tuple(direct._key(ONE)) == ONE
    assert layout.flow.from_buffer_copy(direct._key(ONE)).destination_port == htons(80)
    call = Call(parse_ip("10.0.0.4"), ONE.destination)
    assert direct._called(direct._call(call)) == call


def test_a_way_is_read_as_the_layout_has_it() -> None:
    flags = WayFlag.CLIENT | WayFlag.ENDED
    raw = layout.direct_way(
        opened=10**9,
        seen=2 * 10**9,
        octets=7,
        packets=3,
        cookie=4,
        from_ifindex=11,
        to_ifindex=12,
        next=13,
        flags=flags,
    )
    assert direct._way(bytes(raw)) == Way(1.0, 2.0, 7, 3, flags, 4)


def test_the_reverse_of_the_reverse_is_the_tuple_itself() -> None:
    assert ONE.reverse == Tuple(ONE.destination, ONE.source)
    assert ONE.reverse.reverse == ONE
