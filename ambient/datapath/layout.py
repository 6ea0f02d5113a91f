"""What the C headers under `bpf/` define, mirrored under the same names, and the values the rest of Python sees.

`MIRRORS` and `ENUMERATIONS` are compared with the loaded programs' BTF at every load: a drift cannot start. (`Counter`,
which BTF does not carry, is compared with the header by a test.)
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from ipaddress import IPv4Address, IPv6Address
from types import MappingProxyType
from typing import Final

from ambient.model.address import IpAddress, canonical
from ambient.model.deny import Bits


class Flag(IntFlag):
    """enum pod_flag."""

    CAPTURE_OUT = 1
    CAPTURE_IN = 2
    HBONE_IN = 4
    DNS = 8
    DIRECT = 16


class FailMode(IntEnum):
    """enum fail_mode: what happens to new connections while ztunnel does not listen."""

    CLOSED = 0
    OPEN = 1


class Role(IntFlag):
    """enum owner_role."""

    ZTUNNEL = 1
    KUBELET = 2
    FORMER_ZTUNNEL = 4


class Option(IntFlag):
    """enum config_option."""

    MARK_ALONE = 1
    SILENT_IN = 2
    DROP_CLEAR = 4
    NO_FLOWS = 8
    DIRECT = 16
    EXCHANGING = 32


class Side(IntEnum):
    """enum deny_side."""

    OUT = 0
    IN = 1
    SHADOW_OUT = 2
    SHADOW_IN = 3
    UDP_IN = 4
    UDP_PROVEN = 5
    ICMP_IN = 6
    ICMP_PROVEN = 7


class Path(IntEnum):
    """enum flow_path: between whom a connection is."""

    DIRECT = 0
    CAPTURED = 1
    TUNNEL = 2
    PASSTHROUGH = 3


class End(IntEnum):
    """enum flow_end."""

    NONE = 0
    ORDERLY = 1
    RESET = 2
    ABORTED = 3
    REFUSED = 4
    UNANSWERED = 5
    DENIED = 6


class WayFlag(IntFlag):
    """enum way_flag."""

    CLIENT = 1
    OPENING = 2
    ENDED = 4
    RESET = 8
    CUT = 16
    OVER = 32


class Counter(IntEnum):
    """enum counter: what was decided about new connections, by reason. bpf/maps/counters.h says what each means."""

    REDIRECTED_OUT = 0
    REDIRECTED_IN = 1
    HBONE_IN = 2
    PROBE = 3
    DNS_UDP = 4
    DNS_TCP = 5
    COOKIE_IN = 6
    COOKIE_OUT = 7
    ASSIGNED_ON_LO = 8
    PASSED_OPEN_IN = 9
    PASSED_OPEN_OUT = 10
    REFUSED_NO_LISTENER_IN = 11
    REFUSED_NO_LISTENER_OUT = 12
    REFUSED_OPTIONS = 13
    REFUSED_FRAGMENT = 14
    REFUSED_EXTENSION_HEADER = 15
    REFUSED_VLAN = 16
    REFUSED_UNREADABLE = 17
    REFUSED_UNKNOWN_SOURCE = 18
    REFUSED_UNKNOWN_DESTINATION = 19
    REFUSED_SPOOFED_SOURCE = 20
    REFUSED_BYPASS = 21
    REFUSED_PROXY_PORT = 22
    REFUSED_ASSIGN = 23
    FORGED_MARK = 24
    REFUSED_POLICY_OUT = 25
    REFUSED_POLICY_IN = 26
    REFUSED_POLICY_TUNNEL = 27
    CLEAR_OUT = 28
    CLEAR_IN = 29
    EVENT_LOST = 30
    EVENT_THINNED = 31
    EVENT_FLOW_LOST = 32
    EVENT_FLOW_THINNED = 33
    FLOW_UNCOUNTED = 34
    DIRECT_OUT = 35
    REFUSED_DIRECT_CUT = 36
    REFUSED_DIRECT_TAKEN = 37
    REFUSED_POLICY_UDP = 38
    REFUSED_POLICY_ICMP = 39
    BEYOND_SHARE_DIRECT = 40
    BEYOND_SHARE_FLOWS = 41
    BEYOND_SHARE_TALKS = 42
    LAPSED_POLICY = 43
    LISTENER_UNNAMED = 44
    LISTENER_FULL = 45


class address(ctypes.Structure):
    _fields_ = (("word", ctypes.c_uint32 * 4),)


class pod_row(ctypes.Structure):
    _fields_ = (
        ("flags", ctypes.c_uint32),
        ("fail_in", ctypes.c_uint32),
        ("fail_out", ctypes.c_uint32),
        ("host_ifindex", ctypes.c_uint32),
        ("epoch", ctypes.c_uint32),
    )


class flow(ctypes.Structure):
    _fields_ = (
        ("source", address),
        ("destination", address),
        ("source_port", ctypes.c_uint16),
        ("destination_port", ctypes.c_uint16),
    )


class deny_table(ctypes.Structure):
    _fields_ = (("pod", address), ("side", ctypes.c_uint32))


class deny_key(ctypes.Structure):
    _fields_ = (("prefix", ctypes.c_uint32), ("port", ctypes.c_uint32), ("peer", address))


class deny_row(ctypes.Structure):
    _fields_ = (
        ("bits", ctypes.c_uint32),
        ("rule", ctypes.c_uint32),
        ("allows", ctypes.c_uint32),
        ("unmatched", ctypes.c_uint32),
    )


class event(ctypes.Structure):
    _fields_ = (
        ("time", ctypes.c_uint64),
        ("source", address),
        ("destination", address),
        ("source_port", ctypes.c_uint16),
        ("destination_port", ctypes.c_uint16),
        ("reason", ctypes.c_uint32),
        ("rule", ctypes.c_uint32),
        ("size", ctypes.c_uint32),
        ("arriving", ctypes.c_uint32),
    )


class direct_call(ctypes.Structure):
    _fields_ = (("source", address), ("destination", address), ("port", ctypes.c_uint32))


class direct_grant(ctypes.Structure):
    _fields_ = (("server", address), ("port", ctypes.c_uint32), ("epoch", ctypes.c_uint32))


class direct_way(ctypes.Structure):
    _fields_ = (
        ("opened", ctypes.c_uint64),
        ("seen", ctypes.c_uint64),
        ("octets", ctypes.c_uint64),
        ("packets", ctypes.c_uint64),
        ("cookie", ctypes.c_uint64),
        ("reverse", flow),
        ("from_ifindex", ctypes.c_uint32),
        ("to_ifindex", ctypes.c_uint32),
        ("next", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
        ("unused", ctypes.c_uint32),
    )


class talk_share(ctypes.Structure):
    _fields_ = (("since", ctypes.c_uint64), ("begun", ctypes.c_uint64))


class pace(ctypes.Structure):
    _fields_ = (("since", ctypes.c_uint64), ("told", ctypes.c_uint64), ("last", event))


class flow_event(ctypes.Structure):
    _fields_ = (
        ("time", ctypes.c_uint64),
        ("source", address),
        ("destination", address),
        ("source_port", ctypes.c_uint16),
        ("destination_port", ctypes.c_uint16),
        ("protocol", ctypes.c_uint8),
        ("arriving", ctypes.c_uint8),
        ("unused", ctypes.c_uint16),
        ("path", ctypes.c_uint32),
        ("end", ctypes.c_uint32),
        ("opened", ctypes.c_uint64),
        ("bytes_sent", ctypes.c_uint64),
        ("bytes_received", ctypes.c_uint64),
        ("packets_sent", ctypes.c_uint32),
        ("packets_received", ctypes.c_uint32),
        ("retransmitted", ctypes.c_uint32),
        ("rtt", ctypes.c_uint32),
    )


class flow_pace(ctypes.Structure):
    _fields_ = (("since", ctypes.c_uint64), ("told", ctypes.c_uint64), ("last", flow_event))


class tally_key(ctypes.Structure):
    _fields_ = (
        ("source", address),
        ("destination", address),
        ("port", ctypes.c_uint16),
        ("protocol", ctypes.c_uint8),
        ("arriving", ctypes.c_uint8),
        ("path", ctypes.c_uint32),
        ("end", ctypes.c_uint32),
    )


class tally(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_uint64)
        for name in (
            "flows",
            "bytes_sent",
            "bytes_received",
            "packets_sent",
            "packets_received",
            "retransmitted",
            "rtt",
            "rtts",
        )
    )


MIRRORS: Final[tuple[type[ctypes.Structure], ...]] = (
    address,
    pod_row,
    flow,
    deny_table,
    deny_key,
    deny_row,
    event,
    direct_call,
    direct_grant,
    direct_way,
    talk_share,
    pace,
    flow_event,
    flow_pace,
    tally_key,
    tally,
)

DENY_KEY_SIZE: Final = ctypes.sizeof(deny_key)
DENY_ROW_SIZE: Final = ctypes.sizeof(deny_row)

ENUMERATIONS: Final[Mapping[str, tuple[str, type[IntEnum] | type[IntFlag]]]] = MappingProxyType(
    {
        "pod_flag": ("POD_", Flag),
        "fail_mode": ("FAIL_", FailMode),
        "owner_role": ("OWNER_", Role),
        "config_option": ("OPTION_", Option),
        "deny_side": ("DENY_", Side),
        "deny_bit": ("DENY_BIT_", Bits),
        "flow_path": ("FLOW_", Path),
        "flow_end": ("END_", End),
        "way_flag": ("WAY_", WayFlag),
    }
)
"""C enumeration -> (prefix of its names in C, mirror)."""


@dataclass(frozen=True, slots=True)
class PodRow:
    """What to do with the traffic of one pod address. Zero flags: attached, but nothing is captured yet.

    `host_ifindex` is the node's end of the pod's veth (0: the source address is not checked there); `epoch` is the
    agent's generation (0..2^32-1), which the kernel ignores.
    """

    flags: Flag = Flag(0)
    fail_in: FailMode = FailMode.CLOSED
    fail_out: FailMode = FailMode.CLOSED
    epoch: int = 0
    host_ifindex: int = 0


def pack_row(row: PodRow) -> bytes:
    return bytes(
        pod_row(
            flags=row.flags,
            fail_in=row.fail_in,
            fail_out=row.fail_out,
            host_ifindex=row.host_ifindex,
            epoch=row.epoch & 0xFFFFFFFF,
        )
    )


def unpack_row(data: bytes) -> PodRow:
    raw = pod_row.from_buffer_copy(data)
    # Whatever somebody wrote there: what is not closed opens, so that the sweep sees it and puts the row back.
    modes = FailMode(bool(raw.fail_in)), FailMode(bool(raw.fail_out))
    return PodRow(Flag(raw.flags), *modes, raw.epoch, raw.host_ifindex)


def pack_address(ip: IpAddress) -> bytes:
    """16 bytes, network order; IPv4 in its IPv4-mapped form."""
    ip = canonical(ip)
    return (IPv6Address(f"::ffff:{ip}") if isinstance(ip, IPv4Address) else ip).packed


def unpack_address(data: bytes) -> IpAddress:
    return canonical(IPv6Address(data))
