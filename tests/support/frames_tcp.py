"""Opening TCP packets as frames with right checksums, and whether a frame's checksums are right."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, ip_address

from ambient.model.address import Endpoint, IpAddress

SYN, RST, ACK = 0x02, 0x04, 0x10
_PODS_MAC = bytes.fromhex("020000000002")
_NODES_MAC = bytes.fromhex("020000000001")


def syn(
    source: Endpoint,
    destination: Endpoint,
    sequence: int = 0xFFFFFFFF,
    options: bytes = b"\2\4\5\xb4",
    data: bytes = b"",
) -> bytes:
    """An opening packet from the pod's interface to the node's."""
    header = struct.pack(
        "!HHIIBBHHH", source.port, destination.port, sequence, 0, (20 + len(options)) << 2, SYN, 64240, 0, 0
    )
    segment = header + options + data
    total = checksum(_pseudo(source.ip, destination.ip, len(segment)) + segment)
    segment = segment[:16] + struct.pack("!H", total) + segment[18:]
    if isinstance(source.ip, IPv4Address):
        packet = struct.pack(
            "!BBHHHBBH4s4s", 0x45, 0, 20 + len(segment), 7, 0, 3, 6, 0, source.ip.packed, destination.ip.packed
        )
        packet = packet[:10] + struct.pack("!H", checksum(packet)) + packet[12:]
        kind = 0x0800
    else:
        packet = struct.pack("!IHBB16s16s", 6 << 28, len(segment), 6, 3, source.ip.packed, destination.ip.packed)
        kind = 0x86DD
    return _NODES_MAC + _PODS_MAC + struct.pack("!H", kind) + packet + segment


def answers(frame: bytes, asked: bytes) -> bool:
    """Is `frame` what a closed port answers to `asked`: all swapped, RST and ACK, the right number, right sums?"""
    six = asked[12:14] == b"\x86\xdd"
    at = 14 + (40 if six else 20)
    width, first = (16, 22) if six else (4, 26)
    source, destination = asked[first : first + width], asked[first + width : first + 2 * width]
    segment, question = frame[at:], asked[at:]
    (number,) = struct.unpack_from("!I", question, 4)
    sums = checksum(_pseudo(ip_address(destination), ip_address(source), len(segment)) + segment) == 0
    return (
        frame[:12] == asked[6:12] + asked[:6]
        and frame[first : first + 2 * width] == destination + source
        and segment[:4] == question[2:4] + question[:2]
        and struct.unpack_from("!II", segment, 4) == (0, (number + 1) & 0xFFFFFFFF)
        and segment[13] == RST | ACK
        and sums
        and (six or checksum(frame[14:34]) == 0)
    )


def checksum(data: bytes) -> int:
    """RFC 1071."""
    data += b"\0" * (len(data) % 2)
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def _pseudo(source: IpAddress, destination: IpAddress, length: int) -> bytes:
    if source.version == 4:
        return source.packed + destination.packed + struct.pack("!BBH", 0, 6, length)
    return source.packed + destination.packed + struct.pack("!IxxxB", length, 6)
