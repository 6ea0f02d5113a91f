"""What is noted for pod_lookup is noted until it is used: nobody pushes it out, and what nobody uses makes way."""

from __future__ import annotations

import contextlib
import ctypes
import socket
import sys
from collections.abc import Iterator

import pytest

from ambient.datapath import bpfinfo, bpfsys
from ambient.datapath.layout import Counter, flow
from ambient.model.address import Endpoint
from tests.support.capture_bench import EVERY_FORM, EVERY_WAY, Bench, greeting, used_up
from tests.support.capture_world import GIVE_UP
from tests.support.frames_tcp import syn

pytestmark = [EVERY_WAY, EVERY_FORM]

PORT = 81
"""Nobody listens: the stand-in closes first, so that the TIME_WAIT is on its side."""
YOUNG, OLD = 1 << 62, 1
"""Of when, in ns since the machine started; the first is still to come: it stays young on a slow machine too."""
THROWN_AWAY = 8000
ALIKE = 4


class _Reservation(ctypes.Structure):
    _fields_ = (("flow", flow), ("since", ctypes.c_uint64), ("name", ctypes.c_uint64))


class _Row(ctypes.Structure):
    _fields_ = (("lock", ctypes.c_uint32), ("unused", ctypes.c_uint32), ("places", _Reservation * ALIKE))


@contextlib.contextmanager
def _all_taken(bench: Bench, since: int) -> Iterator[None]:
    """Every place is somebody else's, noted at `since`."""
    path = bench.bpffs / "maps" / "reservations"
    layout = bpfinfo.map_layout(path)
    assert layout.value.size == ctypes.sizeof(_Row)
    row = _Row()
    for number in range(ALIKE):
        row.places[number] = _Reservation(flow(source_port=number + 1), since, 0)
    table = bpfsys.Map(path, layout.key.size, layout.value.size)
    keys = [number.to_bytes(layout.key.size, sys.byteorder) for number in range(layout.entries)]
    try:
        for key in keys:
            table.put(key, bytes(row))
        yield
    finally:
        for key in keys:
            table.put(key, bytes(layout.value.size))
        table.close()


def test_nobody_is_pushed_out_and_who_finds_no_place_is_late_and_never_the_applications(bench: Bench) -> None:
    bench.attach(bench.world.pod)
    proxy = bench.stand_in(bench.world.pod)
    target = Endpoint(bench.world.pod.ip(4), PORT)
    used_up(bench, bench.world.outside, target, 45_640)
    assert proxy.seen.get(timeout=30).source.port == 45_640
    bench.app(bench.world.pod, 4, PORT)
    before = bench.count(Counter.LISTENER_FULL)
    with _all_taken(bench, YOUNG), pytest.raises(TimeoutError):
        bench.connect(bench.world.outside, target, source_port=45_640, patience=GIVE_UP)
    assert bench.count(Counter.LISTENER_FULL) > before
    assert proxy.seen.empty()


def test_what_was_not_used_makes_way(bench: Bench) -> None:
    bench.attach(bench.world.pod)
    proxy = bench.stand_in(bench.world.pod)
    target = Endpoint(bench.world.pod.ip(4), PORT)
    used_up(bench, bench.world.outside, target, 45_641)
    assert proxy.seen.get(timeout=30).source.port == 45_641
    bench.app(bench.world.pod, 4, PORT)
    before = bench.count(Counter.LISTENER_FULL)
    with _all_taken(bench, OLD):
        greeting(bench.connect(bench.world.outside, target, source_port=45_641))
    assert proxy.seen.get(timeout=30).source.port == 45_641
    assert bench.count(Counter.LISTENER_FULL) == before


def test_opening_packets_that_the_kernel_throws_away_leave_room_for_others(bench: Bench) -> None:
    """Before Linux 6.6 each is noted, and none is ever looked up: their checksum is wrong."""
    server = bench.app(bench.world.pod, 4)
    proxy = bench.stand_in(bench.world.pod)
    bench.attach(bench.world.pod)
    outside = bench.world.outside
    with bench.world.inside(outside, "app"), socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP) as raw:
        for port in range(10_000, 10_000 + THROWN_AWAY):
            segment = bytearray(syn(Endpoint(outside.ip(4), port), server.address)[34:])
            segment[16] ^= 0xFF
            raw.sendto(segment, (str(server.address.ip), 0))
    greeting(bench.connect(outside, server.address, patience=30))
    assert proxy.seen.get(timeout=30).destination == server.address
