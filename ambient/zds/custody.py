"""Key custody: ztunnel leaves each certificate with the agent as a memfd, and the next ztunnel takes them back.

A socket of its own (SOCK_SEQPACKET), so that ZDS stays what Istio's agent speaks. ztunnel sends `Put` (with one
descriptor: a sealed memfd of key and chain as PEM), `Drop` and `List`; the agent answers `List` with one `Held` (with
its descriptor) per secret and then `End`. The agent keeps descriptors only: it never reads what is in them.
"""

from __future__ import annotations

from typing import Final

import msgspec

from ambient.errors import ProtocolError

MAX_PACKET: Final = 128 * 1024


class Put(msgspec.Struct, frozen=True, tag="put"):
    """Keep this secret; replaces the one of the same identity. `not_after`: unix seconds. `roots`: PEM."""

    identity: str
    not_after: float
    roots: str


class Drop(msgspec.Struct, frozen=True, tag="drop"):
    """No workload of this identity is left on the node."""

    identity: str


class List(msgspec.Struct, frozen=True, tag="list"):
    """Give everything back; what was put stays in custody."""


class Held(msgspec.Struct, frozen=True, tag="held"):
    """One secret, as it was put."""

    identity: str
    not_after: float
    roots: str


class End(msgspec.Struct, frozen=True, tag="end"):
    """After the last `Held`."""


Custody = Put | Drop | List | Held | End

_ENCODER: Final = msgspec.msgpack.Encoder()
_DECODER: Final[msgspec.msgpack.Decoder[Custody]] = msgspec.msgpack.Decoder(Custody)


def descriptors_of(message: Custody) -> int:
    """How many descriptors must come with a message."""
    return 1 if isinstance(message, Put | Held) else 0


def encode(message: Custody) -> bytes:
    """Raises ProtocolError when the packet would be too long."""
    packet = _ENCODER.encode(message)
    # What is put comes back as a `Held`, which is one byte longer.
    most = MAX_PACKET - isinstance(message, Put)
    if len(packet) > most:
        raise ProtocolError("custody packet", why=f"{len(packet)} bytes, at most {most}")
    return packet


def decode(packet: bytes, descriptors: int) -> Custody:
    """Read one packet; raises ProtocolError for anything unknown or a wrong number of descriptors."""
    try:
        message = _DECODER.decode(packet)
    except msgspec.MsgspecError as error:
        raise ProtocolError("custody packet", why=str(error)) from None
    if descriptors != descriptors_of(message):
        raise ProtocolError("custody packet", type(message).__name__, f"came with {descriptors} descriptors")
    return message
