"""Strict readers of single protobuf fields, shared by the codecs. Each raises InvalidInput naming the field."""

from __future__ import annotations

from enum import IntEnum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any, TypeVar

from google.protobuf.unknown_fields import UnknownFieldSet

from ambient.errors import InvalidInput
from ambient.model.address import IpAddress, IpNetwork, canonical

E = TypeVar("E", bound=IntEnum)


def read_ip(raw: bytes, field: str) -> IpAddress:
    """4 or 16 bytes in network order; IPv4-mapped addresses come back as IPv4."""
    if len(raw) == 4:
        return IPv4Address(raw)
    if len(raw) == 16:
        return canonical(IPv6Address(raw))
    raise InvalidInput(f"{field} has {len(raw)} bytes", why="an address has 4 or 16")


def read_network(raw: bytes, length: int, field: str) -> IpNetwork:
    """Address bytes and prefix length; host bits are masked away, as every reader of the format does."""
    if len(raw) not in (4, 16):
        raise InvalidInput(f"{field} has {len(raw)} bytes", why="an address has 4 or 16")
    limit = len(raw) * 8
    if length > limit:
        raise InvalidInput(f"{field} has prefix length {length}", why=f"at most {limit}")
    if len(raw) == 4:
        return IPv4Network((raw, length), strict=False)
    mapped = IPv6Address(raw).ipv4_mapped
    if mapped is not None and length >= 96:
        return IPv4Network((mapped, length - 96), strict=False)
    return IPv6Network((raw, length), strict=False)


def read_enum(kind: type[E], value: int, field: str) -> E:
    """A member of `kind`; a number that it does not have is refused, never taken for the default."""
    member = kind._value2member_map_.get(value)
    if member is None:
        raise InvalidInput(f"{field} {value} is unknown")
    return member  # type: ignore[return-value]


def read_port(value: int, field: str) -> int:
    if value > 65535:
        raise InvalidInput(f"{field} {value} is no port", why="at most 65535")
    return value


def unknown_field(value: Any, path: str = "") -> str:
    """Path and number of the first field, at any depth, that our descriptors do not have; "" if there is none."""
    strangers = UnknownFieldSet(value)
    if len(strangers):
        return f"{path or 'top level'} field {strangers[0].field_number}"
    for field, content in value.ListFields():
        if field.message_type is None or field.message_type.GetOptions().map_entry:
            continue
        for part in content if isinstance_repeated(content) else (content,):
            found = unknown_field(part, f"{path}.{field.name}" if path else field.name)
            if found:
                return found
    return ""


def isinstance_repeated(content: Any) -> bool:
    """True for the container of a repeated field (a message has no `append`)."""
    return hasattr(content, "append")
