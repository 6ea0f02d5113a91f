"""Events are read in order, around the end of the ring too, up to the first that is still being written."""

from __future__ import annotations

import struct
from ipaddress import ip_address

from ambient.datapath import layout
from ambient.datapath.events import Heard, Told, ToldFlow, parse
from ambient.datapath.layout import Counter, End, Path
from ambient.model.address import Endpoint

BUSY, DISCARDED = 1 << 31, 1 << 30
RING = 256


def packed(time_s: int, flags: int = 0) -> bytes:
    event = layout.event(
        time=time_s * 10**9,
        source=layout.address.from_buffer_copy(layout.pack_address(ip_address("10.0.0.1"))),
        destination=layout.address.from_buffer_copy(layout.pack_address(ip_address("fd00::1"))),
        source_port=0x0100,
        destination_port=0x5000,
        reason=Counter.CLEAR_OUT,
        rule=3,
        size=99,
        arriving=1,
    )
    data = bytes(event)
    return struct.pack("=II", len(data) | flags, 0) + data


def ring(*events: bytes, at: int = 0) -> tuple[bytes, int]:
    """The memory of a ring into which these were written from `at` on, and the writer's position."""
    memory, position = bytearray(RING), at
    for event in events:
        for offset, byte in enumerate(event):
            memory[(position + offset) % RING] = byte
        position += (len(event) + 7) & ~7
    return bytes(memory) * 2, position


def test_an_event_is_read_with_all_it_says() -> None:
    data, end = ring(packed(5))
    told = Told(
        5.0,
        Endpoint(ip_address("10.0.0.1"), 1),
        Endpoint(ip_address("fd00::1"), 80),
        Counter.CLEAR_OUT,
        rule=3,
        size=99,
        arriving=True,
    )
    assert parse(data, 0, end) == (Heard([told]), end)


def test_flows_are_told_from_packets_and_keep_what_they_say() -> None:
    raw = layout.flow_event(
        time=7 * 10**9,
        source=layout.address.from_buffer_copy(layout.pack_address(ip_address("10.0.0.1"))),
        destination=layout.address.from_buffer_copy(layout.pack_address(ip_address("10.0.0.2"))),
        source_port=0x0100,
        destination_port=0x5000,
        protocol=6,
        arriving=1,
        path=Path.TUNNEL,
        end=End.RESET,
        opened=2 * 10**9,
        bytes_sent=2**40,
        bytes_received=3,
        packets_sent=4,
        packets_received=5,
        retransmitted=6,
        rtt=7,
    )
    data, end = ring(packed(1), struct.pack("=II", len(bytes(raw)), 0) + bytes(raw))
    found, _ = parse(data, 0, end)
    assert len(found.packets) == 1
    assert found.flows == [
        ToldFlow(
            7.0,
            Endpoint(ip_address("10.0.0.1"), 1),
            Endpoint(ip_address("10.0.0.2"), 80),
            6,
            arriving=True,
            path=Path.TUNNEL,
            end=End.RESET,
            opened_s=2.0,
            bytes_sent=2**40,
            bytes_received=3,
            packets_sent=4,
            packets_received=5,
            retransmitted=6,
            rtt_us=7,
        )
    ]


def test_a_barrier_is_between_what_says_that_an_event_is_there_and_the_event() -> None:
    data, end = ring(packed(1), packed(2))
    memory = bytearray(data)

    def barrier() -> None:
        memory[:] = ring(packed(3), packed(4))[0]

    found, _ = parse(memoryview(memory), 0, end, barrier)
    assert [one.time_s for one in found.packets] == [3.0, 4.0]


def test_order_discarded_ones_and_the_end_of_the_ring() -> None:
    start = RING * 3 - 64
    data, end = ring(packed(1), packed(2, DISCARDED), at=start)
    found, at = parse(data, start, end)
    assert [one.time_s for one in found.packets] == [1.0]
    assert at == end


def test_reading_stops_before_what_is_still_being_written() -> None:
    data, end = ring(packed(1), packed(2, BUSY))
    found, at = parse(data, 0, end)
    assert [one.time_s for one in found.packets] == [1.0]
    assert parse(data, at, end) == (Heard(), at)


def test_what_programs_of_another_version_told_keeps_nothing_of_the_rest_back() -> None:
    """A reason that this version does not know, and a structure that was shorter."""
    unknown = packed(2).replace(struct.pack("=I", Counter.CLEAR_OUT), struct.pack("=I", 999))
    short = struct.pack("=II", 40, 0) + bytes(40)
    data, end = ring(packed(1), unknown, short)
    found, at = parse(data, 0, end)
    assert at == end
    assert [one.time_s for one in found.packets] == [1.0]
