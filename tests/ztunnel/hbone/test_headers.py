"""Header blocks: ours decode with hpack, hpack's decode with ours, and the small reader keeps to what is stateless."""

from __future__ import annotations

import pytest
from hpack import Decoder, Encoder
from hypothesis import given
from hypothesis import strategies as st

from ztunnel.hbone.headers import BlockReader, literal, read_stateless, request_prefix, response_block
from ztunnel.hbone.limits import Violation

NAMES = st.binary(min_size=1, max_size=300)
FIELDS = st.lists(st.tuples(NAMES, st.binary(max_size=600)), max_size=6)


@given(st.binary(max_size=300), st.binary(max_size=400), FIELDS)
def test_what_we_write_hpack_and_we_read_alike(
    authority: bytes, baggage: bytes, fields: list[tuple[bytes, bytes]]
) -> None:
    block = request_prefix(authority, baggage) + b"".join(literal(*field) for field in fields)
    theirs = [
        (bytes(name), bytes(value)) for name, value in Decoder(max_header_list_size=1 << 20).decode(block, raw=True)
    ]
    assert read_stateless(block) == tuple(theirs)
    assert theirs[:2] == [(b":method", b"CONNECT"), (b":authority", authority)]


@given(st.lists(FIELDS, max_size=8), st.booleans())
def test_what_hpack_writes_we_read_in_any_order(blocks: list[list[tuple[bytes, bytes]]], huffman: bool) -> None:
    encoder, reader = Encoder(), BlockReader(1 << 20)
    for fields in blocks:
        lower = [(name.lower(), value) for name, value in fields]
        assert list(reader.read(encoder.encode(lower, huffman=huffman))) == lower


@pytest.mark.parametrize("status", [200, 400, 401, 503, 404, 299])
def test_an_answer_carries_status_and_baggage(status: int) -> None:
    assert BlockReader(999).read(response_block(status, b"a=b")) == (
        (b":status", str(status).encode()),
        (b"baggage", b"a=b"),
    )


@pytest.mark.parametrize(
    "block", [b"\x40\x01a\x01b", b"\x20", b"\x80", b"\xbe", b"\x00\x81a\x01b", b"\x00\x05ab", b"\x0f"]
)
def test_the_small_reader_leaves_everything_else_to_hpack(block: bytes) -> None:
    assert read_stateless(block) is None


def test_a_list_longer_than_the_limit_is_refused_by_both_readers() -> None:
    with pytest.raises(Violation) as small:
        BlockReader(100).read(literal(b"a", bytes(100)))
    with pytest.raises(Violation) as large:
        BlockReader(100).read(Encoder().encode([(b"a", bytes(100))]))
    assert small.value.reason == large.value.reason == "header_list_size"


def test_what_is_remembered_of_a_peer_is_bounded() -> None:
    reader = BlockReader(9_999)
    for number in range(5_000):
        reader.read(literal(b"n", b"%d" % number))
    assert len(reader._seen) == 64


def test_a_block_that_stands_for_many_fields_is_not_remembered() -> None:
    reader = BlockReader(65_536)
    assert len(reader.read(b"\x90" * 200)) == 200
    assert not reader._seen
    reader.read(b"\x90" * 5)
    assert reader._seen


def test_a_block_of_table_size_updates_is_refused_before_it_has_cost_what_they_do() -> None:
    reader = BlockReader(65_536)
    small, default = b"\x20", b"\x3f\xe1\x1f"
    assert reader.read(small + default + b"\x88") == ((b":status", b"200"),)
    for update in (small, default, b"\x3f\x80\x00"):
        with pytest.raises(Violation) as found:
            reader.read(update * 9 + b"\x88")
        assert (found.value.reason, found.value.text) == (
            "compression",
            "too many table size updates in a header block",
        )
