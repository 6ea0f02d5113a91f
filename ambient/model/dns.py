"""DNS messages as far as a forwarder needs them: read one question, write an answer; and our own questions. No I/O.

Everything else in a message is passed on untouched, so that no record type has to be understood.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

from ambient.errors import InvalidInput

A: Final = 1
CNAME: Final = 5
AAAA: Final = 28
OPT: Final = 41
IN: Final = 1
TTL_S: Final = 30
SERVER_FAILURE: Final = 2
REFUSED: Final = 5

_HEAD: Final = struct.Struct(">HHHHHH")
_RECORD: Final = struct.Struct(">HHIH")
_RESPONSE: Final = 0x8000
_AUTHORITATIVE: Final = 0x0400
_TRUNCATED: Final = 0x0200
_RECURSION_DESIRED: Final = 0x0100
_RECURSION_AVAILABLE: Final = 0x0080
_OPCODE: Final = 0x7800
_SMALLEST: Final = 512
_LARGEST: Final = 4096
_LONGEST_MESSAGE: Final = 65_535
_TO_QUESTION: Final = b"\xc0\x0c"
_POINTER: Final = 0xC0
_CODE: Final = 0x000F
_NO_SUCH_NAME: Final = 3
_ADDRESS_SIZES: Final = {A: 4, AAAA: 16}


@dataclass(frozen=True, slots=True)
class Query:
    """A standard query with one question."""

    id: int
    flags: int
    question: bytes
    """The question section as it came (its case is echoed)."""

    name: str
    """Lower case, without the final dot; "" if it holds octets that no host name has."""

    qtype: int
    qclass: int
    limit: int
    """Largest answer in octets that the asker takes over UDP."""

    extended: bool
    """The query carried an OPT record, so the answer must."""


def _read_name(data: bytes, at: int) -> tuple[str, int]:
    labels: list[bytes] = []
    total = 0
    while True:
        size = data[at]
        at += 1
        if not size:
            break
        if size > 63 or at + size > len(data):
            raise IndexError
        labels.append(data[at : at + size])
        at += size
        total += size + 1
        if total > 254:
            raise IndexError
    plain = all(label.replace(b"-", b"").replace(b"_", b"").isalnum() or label == b"*" for label in labels)
    return (b".".join(labels).decode("ascii").lower() if plain else ""), at


def read_query(data: bytes) -> Query:
    """Read a query; raises InvalidInput for anything that is not a standard query with exactly one question."""
    try:
        number, flags, questions, answers, authorities, additional = _HEAD.unpack_from(data)
        if flags & (_RESPONSE | _OPCODE) or questions != 1 or answers or authorities:
            raise InvalidInput("DNS query", "", "not a standard query with one question")
        name, at = _read_name(data, 12)
        qtype, qclass = struct.unpack_from(">HH", data, at)
        end = at + 4
        limit, extended = _SMALLEST, False
        if additional and data[end : end + 1] == b"\0":
            kind, size = struct.unpack_from(">HH", data, end + 1)
            if kind == OPT:
                limit, extended = min(max(size, _SMALLEST), _LARGEST), True
    except (struct.error, IndexError, UnicodeDecodeError):
        raise InvalidInput("DNS query", "", "cut short or malformed") from None
    return Query(number, flags, data[12:end], name, qtype, qclass, limit, extended)


def write_query(name: str, qtype: int) -> bytes:
    """A question of our own, under id 0; raises InvalidInput for what is no host name."""
    labels = name.rstrip(".").split(".")
    if not name.isascii() or not all(0 < len(label) < 64 for label in labels) or len(name) > 253:
        raise InvalidInput("host name", repr(name), "cannot be asked for")
    return (
        _HEAD.pack(0, _RECURSION_DESIRED, 1, 0, 0, 0) + _encode_name(".".join(labels)) + struct.pack(">HH", qtype, IN)
    )


@dataclass(frozen=True, slots=True)
class Found:
    """What an answer to a question of our own holds. `ttl` in seconds: the least of its addresses'."""

    addresses: tuple[IPv4Address | IPv6Address, ...]
    ttl: int
    truncated: bool


def read_answer(data: bytes) -> Found:
    """The addresses in an answer, whatever aliases lead to them; raises InvalidInput for a failure and for junk.

    A name that does not exist is an answer without addresses.
    """
    try:
        _, flags, questions, answers, _, _ = _HEAD.unpack_from(data)
        if flags & _CODE not in (0, _NO_SUCH_NAME):
            raise InvalidInput("DNS answer", "", f"code {flags & _CODE}")
        at = 12
        for _ in range(questions):
            at = _past_name(data, at) + 4
        found: list[IPv4Address | IPv6Address] = []
        ttls: list[int] = []
        for _ in range(answers):
            at = _past_name(data, at)
            qtype, qclass, ttl, size = _RECORD.unpack_from(data, at)
            at += _RECORD.size
            if qclass == IN and qtype in _ADDRESS_SIZES:
                if size != _ADDRESS_SIZES[qtype] or at + size > len(data):
                    raise IndexError
                found.append(ip_address(data[at : at + size]))
                ttls.append(ttl)
            at += size
    except (struct.error, IndexError):
        raise InvalidInput("DNS answer", "", "cut short or malformed") from None
    return Found(tuple(found), min(ttls, default=0), bool(flags & _TRUNCATED))


def _past_name(data: bytes, at: int) -> int:
    while size := data[at]:
        if size >= _POINTER:
            return at + 2
        at += size + 1
    return at + 1


def answers_to(query: Query, number: int, data: bytes) -> bool:
    """Whether `data` is a response to the query that was forwarded with id `number`."""
    if len(data) < 12 + len(query.question) or data[:2] != number.to_bytes(2, "big") or not data[2] & 0x80:
        return False
    return data[12 : 12 + len(query.question)].lower() == query.question.lower()


def with_id(data: bytes, number: int) -> bytes:
    """The message under another id."""
    return number.to_bytes(2, "big") + data[2:]


def _encode_name(name: str) -> bytes:
    return b"".join(bytes((len(label),)) + label.encode("ascii") for label in name.split(".")) + b"\0"


def _opt(query: Query) -> bytes:
    return b"\0" + _RECORD.pack(OPT, _LARGEST, 0, 0) if query.extended else b""


def write_answer(
    query: Query, addresses: Sequence[str], canonical: str = "", *, limit: int | None = None, ttl_s: int = TTL_S
) -> bytes:
    """An authoritative answer with the addresses of the asked family (maybe none), to be kept for `ttl_s`.

    `canonical`: the full name when a search suffix was completed; it is given as CNAME. Over `limit` octets (None:
    what a message can have at all, over TCP) the answer says that it is truncated. Addresses that find no room cost
    nothing: of a service there may be thousands.
    """
    version = 4 if query.qtype == A else 6
    opt = _opt(query)
    room = (_LONGEST_MESSAGE if limit is None else limit) - 12 - len(query.question) - len(opt)
    records: list[bytes] = []
    flags = _RESPONSE | _AUTHORITATIVE | _RECURSION_AVAILABLE | (query.flags & _RECURSION_DESIRED)
    for record in _records(query, addresses, canonical, version, ttl_s):
        room -= len(record)
        if room < 0:
            flags |= _TRUNCATED
            break
        records.append(record)
    head = _HEAD.pack(query.id, flags, 1, len(records), 0, 1 if opt else 0)
    return head + query.question + b"".join(records) + opt


def _records(query: Query, addresses: Sequence[str], canonical: str, version: int, ttl_s: int) -> Iterator[bytes]:
    owner = _TO_QUESTION
    if canonical and canonical != query.name:
        target = _encode_name(canonical)
        yield _TO_QUESTION + _RECORD.pack(CNAME, IN, ttl_s, len(target)) + target
        # The CNAME's data begins after the header, the question, the pointer and the record's fixed part.
        owner = (0xC000 | (12 + len(query.question) + 2 + _RECORD.size)).to_bytes(2, "big")
    for ip in map(ip_address, addresses):
        if ip.version == version:
            yield owner + _RECORD.pack(query.qtype, IN, ttl_s, len(ip.packed)) + ip.packed


def write_failure(query: Query, code: int = SERVER_FAILURE) -> bytes:
    """An answer that says only that there is none."""
    opt = _opt(query)
    flags = _RESPONSE | _RECURSION_AVAILABLE | (query.flags & _RECURSION_DESIRED) | code
    return _HEAD.pack(query.id, flags, 1, 0, 0, 1 if opt else 0) + query.question + opt
