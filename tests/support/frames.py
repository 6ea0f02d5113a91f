"""Hand-made frames: what a container with CAP_NET_RAW can put on its wire."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address

from ambient.model.address import IpAddress

TCP = 6
SYN = 0x02
ETH_IPV4 = 0x0800
ETH_IPV6 = 0x86DD
ETH_VLAN = 0x8100
HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, NO_NEXT, DESTINATION = 0, 43, 44, 51, 59, 60
MORE_FRAGMENTS = 0x2000


def checksum(data: bytes) -> int:
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def tcp(source: IpAddress, destination: IpAddress, ports: tuple[int, int], payload: bytes, flags: int = SYN) -> bytes:
    """A segment with a right checksum."""
    header = struct.pack("!HHIIBBHHH", *ports, 1000, 0, 5 << 4, flags, 65535, 0, 0)
    length = len(header) + len(payload)
    pseudo = source.packed + destination.packed
    pseudo += struct.pack("!BBH", 0, TCP, length) if source.version == 4 else struct.pack("!IxxxB", length, TCP)
    summed = checksum(pseudo + header + payload)
    return header[:16] + struct.pack("!H", summed) + header[18:] + payload


def ipv4(
    source: IpAddress,
    destination: IpAddress,
    body: bytes,
    *,
    options: bytes = b"",
    fragment: int = 0,
    protocol: int = TCP,
) -> bytes:
    """`fragment` is the 16-bit field: flags and offset in units of eight bytes."""
    words = 5 + len(options) // 4
    length = words * 4 + len(body)
    assert isinstance(source, IPv4Address)
    header = struct.pack(
        "!BBHHHBBH4s4s", 4 << 4 | words, 0, length, 7, fragment, 64, protocol, 0, source.packed, destination.packed
    )
    header += options
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + body


def ipv6(source: IpAddress, destination: IpAddress, body: bytes, *, first_header: int = TCP) -> bytes:
    assert isinstance(source, IPv6Address)
    return struct.pack("!IHBB16s16s", 6 << 28, len(body), first_header, 64, source.packed, destination.packed) + body


def padding_options(following: int) -> bytes:
    """A hop-by-hop or destination options header of eight bytes that asks for nothing."""
    return struct.pack("!BBBB4x", following, 0, 1, 4)


def fragment_header(following: int, field: int) -> bytes:
    """`field`: offset in the upper 13 bits, "more" in the lowest."""
    return struct.pack("!BBHI", following, 0, field, 77)


def authentication_header(following: int) -> bytes:
    """24 bytes; nobody on the way can check it."""
    return struct.pack("!BBHII12x", following, 4, 0, 1, 1)


def ethernet(source: bytes, destination: bytes, kind: int, body: bytes, *, vlans: tuple[int, ...] = ()) -> bytes:
    tags = b"".join(struct.pack("!HH", ETH_VLAN, vlan) for vlan in vlans)
    return destination + source + tags + struct.pack("!H", kind) + body
