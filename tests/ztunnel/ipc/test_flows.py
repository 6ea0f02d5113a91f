"""Packed flow records."""

from __future__ import annotations

import pytest

from ambient.errors import InvalidInput
from ztunnel.ipc.flows import FlowRecord, pack, unpack


def test_what_is_packed_comes_out_again() -> None:
    records = [
        FlowRecord(event="opened", time_unix=1.5, node="n", direction="inbound", source="a:1", destination="b:2"),
        FlowRecord(
            event="failed", time_unix=2, node="n", direction="outbound", source="a:1", destination="b:2", reason="why"
        ),
    ]
    assert unpack(pack(records)) == records
    assert unpack(pack([])) == []


@pytest.mark.parametrize("junk", [b"", b"\xc0", b"\x91\x91\xa1x", b"\x91\xc0", b"\xff"])
def test_junk_is_refused(junk: bytes) -> None:
    with pytest.raises(InvalidInput):
        unpack(junk)
