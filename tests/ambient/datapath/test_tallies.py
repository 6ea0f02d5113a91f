"""Lines of a sheet are read as the header lays them out."""

from __future__ import annotations

import ctypes
import socket
from ipaddress import ip_address

from ambient.datapath import layout, tallies
from ambient.datapath.layout import End, Path
from ambient.datapath.tallies import Line


def test_a_line_keeps_what_it_says() -> None:
    key = layout.tally_key(
        source=layout.address.from_buffer_copy(layout.pack_address(ip_address("10.0.0.1"))),
        destination=layout.address.from_buffer_copy(layout.pack_address(ip_address("fd00::2"))),
        port=socket.htons(80),
        protocol=6,
        arriving=1,
        path=Path.PASSTHROUGH,
        end=End.ABORTED,
    )
    value = layout.tally(1, 2, 3, 4, 5, 6, 7, 8)
    assert (len(bytes(key)), len(bytes(value))) == (tallies.KEY_SIZE, tallies.LINE_SIZE)
    assert tallies._line(bytes(key), bytes(value)) == Line(
        ip_address("10.0.0.1"),
        ip_address("fd00::2"),
        80,
        6,
        arriving=True,
        path=Path.PASSTHROUGH,
        end=End.ABORTED,
        flows=1,
        bytes_sent=2,
        bytes_received=3,
        packets_sent=4,
        packets_received=5,
        retransmitted=6,
        rtt_us=7,
        rtts=8,
    )


def test_a_line_that_another_version_wrote_is_no_line() -> None:
    for unknown in (layout.tally_key(path=99), layout.tally_key(end=99)):
        assert tallies._line(bytes(unknown), bytes(layout.tally())) is None


def test_the_structures_have_no_holes_that_a_key_would_carry() -> None:
    assert sum(getattr(layout.tally_key, name).size for name, *_ in layout.tally_key._fields_) == tallies.KEY_SIZE
    assert ctypes.sizeof(layout.tally) == 8 * len(layout.tally._fields_)
