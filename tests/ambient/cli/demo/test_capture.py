"""The capture of the demo finds what is there, also when packets cut it in two; and it is not fooled by nothing."""

from __future__ import annotations

import struct

import pytest

from ambient.cli.demo.capture import Capture, Segment, segments, streams
from ambient.cli.demo.stage import Broken

MARKER = b"secret-0123456789"


def _tcp(source: int, destination: int, sequence: int, payload: bytes) -> bytes:
    return struct.pack("!HHIIBBHHH", source, destination, sequence, 0, 5 << 4, 0x18, 1024, 0, 0) + payload


def _four(tcp: bytes) -> bytes:
    header = struct.pack(
        "!BBHHHBBH4s4s", 0x45, 0, 20 + len(tcp), 0, 0, 64, 6, 0, bytes([10, 0, 0, 1]), bytes([10, 0, 0, 2])
    )
    return header + tcp


def _six(tcp: bytes) -> bytes:
    return struct.pack("!IHBB16s16s", 6 << 28, len(tcp), 6, 64, b"\1" * 16, b"\2" * 16) + tcp


def _pcap(*packets: bytes, kind: int = 276) -> bytes:
    head = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, kind)
    frames = []
    for packet in packets:
        ethertype = 0x0800 if packet[0] >> 4 == 4 else 0x86DD
        link = (
            struct.pack("!HHIHBB8s", ethertype, 0, 1, 1, 0, 6, b"")
            if kind == 276
            else b"\0" * 12 + struct.pack("!H", ethertype)
        )
        frame = link + packet
        frames.append(struct.pack("<IIII", 0, 0, len(frame), len(frame)) + frame)
    return head + b"".join(frames)


def _capture(pcap: bytes) -> Capture:
    capture = Capture("lab", "n1")
    capture._raw = pcap
    return capture


@pytest.mark.parametrize("kind", [1, 276])
@pytest.mark.parametrize("ip", [_four, _six], ids=["IPv4", "IPv6"])
def test_tcp_is_read_from_both_families_and_link_types(kind: int, ip: object) -> None:
    assert callable(ip)
    (segment,) = segments(_pcap(ip(_tcp(5, 80, 7, MARKER)), kind=kind))
    assert (segment.source[1], segment.destination[1], segment.sequence, segment.payload) == (5, 80, 7, MARKER)


def test_a_marker_in_one_packet_is_found() -> None:
    assert _capture(_pcap(_four(_tcp(5, 80, 1, b"x" + MARKER)))).shows(MARKER)


def test_a_marker_cut_in_two_and_out_of_order_is_found() -> None:
    pcap = _pcap(_four(_tcp(5, 80, 6, MARKER[5:])), _four(_tcp(5, 80, 1, MARKER[:5])))
    assert MARKER not in pcap
    assert _capture(pcap).shows(MARKER)


def test_a_capture_without_the_marker_does_not_show_it() -> None:
    assert not _capture(_pcap(_four(_tcp(5, 80, 1, MARKER[:-1])))).shows(MARKER)


def test_tls_is_seen_as_tls_and_anything_else_is_not() -> None:
    hello = bytes([22, 3, 1, 0, 5]) + b"hello"
    assert _capture(_pcap(_four(_tcp(5, 15008, 1, hello)))).tls_on(15008)
    assert not _capture(_pcap(_four(_tcp(5, 15008, 1, b"GET / HTTP/1.1")))).tls_on(15008)


def test_silence_is_not_taken_for_encryption() -> None:
    assert not _capture(_pcap()).tls_on(15008)


def test_ports_are_those_that_carried_bytes_of_the_sender() -> None:
    capture = _capture(_pcap(_four(_tcp(5, 80, 1, b"")), _four(_tcp(5, 8080, 1, b"x"))))
    assert capture.ports_from(["10.0.0.1"]) == {8080}
    assert capture.ports_from(["10.0.0.2", "::1"]) == set()


def test_a_repeated_packet_counts_once() -> None:
    packet = Segment((b"a", 1), (b"b", 2), 9, b"once")
    assert list(streams(iter([packet, packet])).values()) == [b"once"]


@pytest.mark.parametrize(
    "text", [b"", b"not a capture, far from it, not at all", _pcap(_four(_tcp(1, 2, 3, b"")), kind=228)]
)
def test_what_is_no_capture_is_refused(text: bytes) -> None:
    with pytest.raises(Broken):
        list(segments(text))
