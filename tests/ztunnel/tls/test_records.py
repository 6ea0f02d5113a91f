"""When there is something to go on with in a handshake."""

from __future__ import annotations

import pytest

from ambient.errors import ProtocolError
from ztunnel.tls.records import PIECES, Records

HELLO = bytes((22, 3, 1, 1, 4)) + bytes(260)


def told(records: Records, *pieces: bytes) -> list[bool]:
    return [records.complete(memoryview(piece)) for piece in pieces]


@pytest.mark.parametrize("size", [1, 2, 4, 5, 6, 7, 264])
def test_pieces_of_a_record_are_nothing_to_go_on_with_until_its_last(size: int) -> None:
    pieces = [HELLO[at : at + size] for at in range(0, len(HELLO), size)]
    found = told(Records(), *pieces)
    assert found == [False] * (len(pieces) - 1) + [True]


def test_the_next_record_begins_where_one_ends() -> None:
    three = HELLO * 3
    assert told(Records(), three[:100], three[100:400], three[400:530], three[530:]) == [False, True, True, True]
    assert told(Records(), three) == [True]
    assert told(Records(), three + HELLO[:3], HELLO[3:]) == [True, True]


@pytest.mark.parametrize("octets", [b"GET / HTTP/1.1", b"\0", HELLO[:3] + b"\xff\xff", HELLO[:3] + b"\0\0", b"\x18"])
def test_what_is_no_record_is_refused_by_tls_at_once(octets: bytes) -> None:
    assert told(Records(), octets) == [True]


def test_after_an_empty_record_comes_the_next() -> None:
    empty = HELLO[:3] + bytes(2)
    assert told(Records(), empty + HELLO[:100], HELLO[100:200], HELLO[200:]) == [True, False, True]


@pytest.mark.parametrize("again", [b"\x16\3\1\0\1x", b"\x16\3\1\0\0", b"\xbf", b"\x16\3\1\xff\xff" + bytes(0xFFFF)])
def test_pieces_without_end_are_not_waited_for(again: bytes) -> None:
    records = Records()
    assert told(records, *[again] * PIECES) == [True] * PIECES
    with pytest.raises(ProtocolError, match="too many pieces"):
        records.complete(memoryview(again))
