"""Requests and answers as values: header fields checked against RFC 9113 section 8 and read for what HBONE needs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from ztunnel.hbone.frames import Code
from ztunnel.hbone.headers import Fields
from ztunnel.hbone.limits import Violation

_REQUEST_PSEUDO: Final = frozenset({b":method", b":authority", b":scheme", b":path", b":protocol"})
_ANSWER_PSEUDO: Final = frozenset({b":status"})
_COLON: Final = 58
_FORBIDDEN: Final = frozenset({b"connection", b"proxy-connection", b"keep-alive", b"transfer-encoding", b"upgrade"})


@dataclass(frozen=True, slots=True)
class Request:
    """What a peer asks for. `fields` are the ordinary fields in order; absent pseudo fields are empty."""

    method: bytes
    authority: bytes
    fields: Fields
    connect: bool
    """A plain CONNECT: method CONNECT, an authority, neither scheme nor path nor protocol."""

    def first(self, name: bytes) -> bytes:
        """The first value of a field, or empty."""
        for key, value in self.fields:
            if key == name:
                return value
        return b""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a peer answered to our CONNECT."""

    status: int
    fields: Fields


def _malformed(why: str) -> Violation:
    return Violation(Code.PROTOCOL_ERROR, "malformed_headers", why)


@lru_cache(maxsize=256)
def _allowed(name: bytes) -> bool:
    """RFC 9113 8.2.1 and 8.2.2: visible ASCII without capitals and without a colon, nothing about the connection."""
    return (
        bool(name)
        and all(0x20 < octet < 0x7F and octet != _COLON for octet in name)
        and name == name.lower()
        and name not in _FORBIDDEN
    )


def _split(fields: Fields, allowed: frozenset[bytes]) -> tuple[dict[bytes, bytes], Fields]:
    pseudo: dict[bytes, bytes] = {}
    for name, value in fields:
        if not name or name[0] != _COLON:
            break
        if name not in allowed or name in pseudo:
            raise _malformed(f"pseudo field {name!r} is unknown here or repeated")
        pseudo[name] = value
    rest = fields[len(pseudo) :]
    for name, value in rest:
        if not _allowed(name):
            raise _malformed(f"field {name[:64]!r} is not allowed")
        # Octets as numbers: asked for octets as a string the interpreter raises and catches an error first.
        if 0 in value or 10 in value or 13 in value:
            raise _malformed(f"field {name[:64]!r} has a forbidden character")
    return pseudo, rest


def read_request(fields: Fields) -> Request:
    """Check and read request fields; raises Violation (an error of the stream, not of the connection)."""
    pseudo, rest = _split(fields, _REQUEST_PSEUDO)
    method = pseudo.get(b":method", b"")
    if not method:
        raise _malformed("request without :method")
    authority = pseudo.get(b":authority", b"")
    connect = method == b"CONNECT" and bool(authority) and len(pseudo) == 2
    return Request(method, authority, rest, connect)


@lru_cache(maxsize=16)
def read_answer(fields: Fields) -> Answer:
    """Check and read response fields; raises Violation (an error of the stream). Peers say the same again and again."""
    pseudo, rest = _split(fields, _ANSWER_PSEUDO)
    status = pseudo.get(b":status", b"")
    if len(status) != 3 or not status.isdigit():
        raise _malformed("response without a three-digit :status")
    return Answer(int(status), rest)


def check_trailers(fields: Fields) -> bool:
    """Whether fields may end a stream: none of them a pseudo field or malformed. What they say is of no use to us."""
    try:
        _split(fields, frozenset())
    except Violation:
        return False
    return True
