"""Requests and answers as values."""

from __future__ import annotations

import pytest

from ztunnel.hbone.limits import Violation
from ztunnel.hbone.message import read_answer, read_request


def test_a_plain_connect_is_one() -> None:
    request = read_request(((b":method", b"CONNECT"), (b":authority", b"a:1"), (b"x", b"1"), (b"x", b"2")))
    assert request.connect
    assert request.first(b"x") == b"1"
    assert request.first(b"y") == b""


@pytest.mark.parametrize(
    "extra", [(b":scheme", b"https"), (b":path", b"/"), (b":protocol", b"websocket"), (b":method", b"GET")]
)
def test_anything_more_or_other_is_not_a_plain_connect(extra: tuple[bytes, bytes]) -> None:
    fields = {b":method": b"CONNECT", b":authority": b"a:1"} | dict([extra])
    assert not read_request(tuple(fields.items())).connect


def test_a_connect_without_authority_is_not_one() -> None:
    assert not read_request(((b":method", b"CONNECT"),)).connect


@pytest.mark.parametrize("status", [b"", b"20", b"2000", b"abc"])
def test_an_answer_needs_three_digits(status: bytes) -> None:
    with pytest.raises(Violation):
        read_answer(((b":status", status),))
