"""Lines out of pieces."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambient.errors import ProtocolError
from ambient.kube.api.lines import Lines


@given(st.lists(st.binary(min_size=1, max_size=9).map(lambda b: b.replace(b"\n", b"x"))), st.integers(1, 7))
def test_the_lines_are_the_same_in_whatever_pieces_they_come(lines: list[bytes], size: int) -> None:
    data = b"".join(line + b"\n" for line in lines)
    cut = Lines()
    found = [line for at in range(0, len(data), size) for line in cut.feed(data[at : at + size])]
    assert found == [line for line in lines if line.strip()]


def test_a_line_without_its_end_is_not_given() -> None:
    cut = Lines()
    assert list(cut.feed(b'{"a": 1}\n{"b"')) == [b'{"a": 1}']
    assert list(cut.feed(b": 2}\n")) == [b'{"b": 2}']


def test_a_line_that_never_ends_is_refused() -> None:
    cut = Lines(longest=100)
    assert not list(cut.feed(b"x" * 100))
    with pytest.raises(ProtocolError):
        list(cut.feed(b"x"))
