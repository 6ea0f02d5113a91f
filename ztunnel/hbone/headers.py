"""Header blocks of CONNECT requests and their answers.

What we send never touches the peer's dynamic table, so a block is a constant that can be cached per destination.
What we receive is first read by a small reader for such stateless blocks; anything else (dynamic table, Huffman,
table size updates) goes to the hpack package, whose state stays right because the small reader refuses every block
that would change it.
"""

from __future__ import annotations

from typing import Final

from hpack import Decoder, HPACKError, OversizedHeaderListError
from hpack.table import HeaderTable

from ztunnel.hbone.frames import Code
from ztunnel.hbone.limits import Violation

Fields = tuple[tuple[bytes, bytes], ...]
"""Name and value of every field in order, pseudo fields first, names in lower case."""

_STATIC: Final[tuple[tuple[bytes, bytes], ...]] = ((b"", b""), *HeaderTable.STATIC_TABLE)
_AUTHORITY_INDEX: Final = 1
_METHOD_INDEX: Final = 2
_STATUS_INDEX: Final = 8
_STATUS_INDEXED: Final = {200: b"\x88", 204: b"\x89", 400: b"\x8c", 404: b"\x8d", 500: b"\x8e"}
_SEEN_LIMIT: Final = 64
_SEEN_FIELDS: Final = 16
"""Blocks that a connection remembers, and fields of one: a peer chooses what they are, and each takes memory as long as
the connection lasts, much more than its octets. A tunnel's request has five."""
_SIZE_UPDATE: Final = 0x20
_SIZE_UPDATES: Final = 8
"""At the beginning of a block. Two are enough: the smallest size since the last block, and the last (RFC 7541 4.2)."""


def _length(size: int) -> bytes:
    """The length of a plain string (7-bit prefix integer of RFC 7541 5.1)."""
    if size < 127:
        return bytes((size,))
    out = bytearray(b"\x7f")
    size -= 127
    while size >= 128:
        out.append(size & 127 | 128)
        size >>= 7
    out.append(size)
    return bytes(out)


def literal(name: bytes, value: bytes) -> bytes:
    """A field as literal without indexing with its name spelt out."""
    return b"\x00" + _length(len(name)) + name + _length(len(value)) + value


def request_prefix(authority: bytes, baggage: bytes) -> bytes:
    """The part of a CONNECT request that is the same for every connection to a destination."""
    block = bytes((_METHOD_INDEX,)) + b"\x07CONNECT" + bytes((_AUTHORITY_INDEX,)) + _length(len(authority)) + authority
    return block + literal(b"baggage", baggage) if baggage else block


def response_block(status: int, baggage: bytes = b"") -> bytes:
    """A header block with `:status` and, when not empty, `baggage`."""
    block = _STATUS_INDEXED.get(status) or bytes((_STATUS_INDEX,)) + b"\x03" + b"%03d" % status
    return block + literal(b"baggage", baggage) if baggage else block


def _integer(block: bytes, at: int, prefix: int) -> tuple[int, int]:
    """Value and next position of a prefixed integer whose prefix bits were all ones; IndexError if cut short."""
    value, shift = prefix, 0
    while True:
        octet = block[at]
        at += 1
        value += (octet & 127) << shift
        if octet < 128:
            return value, at
        shift += 7
        if shift > 28:
            raise IndexError


def _text(block: bytes, at: int) -> tuple[bytes, int]:
    """A plain string and the next position; IndexError for Huffman coding or a string cut short."""
    size = block[at]
    at += 1
    if size >= 127:
        if size != 127:
            raise IndexError
        size, at = _integer(block, at, 127)
    end = at + size
    if end > len(block):
        raise IndexError
    return block[at:end], end


def read_stateless(block: bytes, limit: int = 65_536) -> Fields | None:
    """The fields of a block made of static entries and plain unindexed literals, else None.

    Raises Violation as soon as the list is larger than `limit` (RFC 9113 6.5.2), before it has cost more.
    """
    fields: list[tuple[bytes, bytes]] = []
    at, size = 0, len(block)
    try:
        while at < size:
            first = block[at]
            at += 1
            if first & 0x80:
                if first == 0x80:
                    return None
                name, value = _STATIC[first & 0x7F]
            elif first & 0x60:
                return None
            else:
                index = first & 0x0F
                if index == 15:
                    index, at = _integer(block, at, 15)
                if index:
                    name = _STATIC[index][0]
                else:
                    name, at = _text(block, at)
                value, at = _text(block, at)
            fields.append((name, value))
            limit -= len(name) + len(value) + 32
            if limit < 0:
                raise Violation(Code.ENHANCE_YOUR_CALM, "header_list_size", "header list too large")
    except IndexError:
        return None
    return tuple(fields)


def _refuse_many_size_updates(block: bytes) -> None:
    """Raises Violation: one octet each they would cost a tenth of a second in a block of them."""
    at = updates = 0
    while at < len(block) and block[at] & 0xE0 == _SIZE_UPDATE:
        long = block[at] & 0x1F == 0x1F
        at += 1
        while long and at < len(block):
            long = block[at] >= 128
            at += 1
        updates += 1
        if updates > _SIZE_UPDATES:
            raise Violation(Code.COMPRESSION_ERROR, "compression", "too many table size updates in a header block")


class BlockReader:
    """Decodes the header blocks of one connection, in the order they arrive. Raises Violation."""

    __slots__ = ("_decoder", "_limit", "_seen")

    def __init__(self, limit: int) -> None:
        self._decoder: Decoder | None = None
        self._limit = limit
        self._seen: dict[bytes, Fields] = {}

    def read(self, block: bytes) -> Fields:
        """All fields of a complete block; the connection is lost when this raises."""
        known = self._seen.get(block)
        if known is not None:
            return known
        fields = read_stateless(block, self._limit)
        if fields is not None:
            short = len(block) < 256 and len(fields) <= _SEEN_FIELDS
            if short and len(self._seen) < _SEEN_LIMIT and b"traceparent" not in block:
                self._seen[block] = fields
            return fields
        _refuse_many_size_updates(block)
        if self._decoder is None:
            self._decoder = Decoder(max_header_list_size=self._limit)
        try:
            return tuple((bytes(name), bytes(value)) for name, value in self._decoder.decode(block, raw=True))
        except OversizedHeaderListError:
            raise Violation(Code.ENHANCE_YOUR_CALM, "header_list_size", "header list too large") from None
        except (HPACKError, UnicodeError, ValueError, IndexError):
            # The peer hears this, and the library's words may hold addresses of our memory.
            raise Violation(Code.COMPRESSION_ERROR, "compression", "header block cannot be decoded") from None
