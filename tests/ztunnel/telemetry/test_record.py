"""Which way octets of a record run."""

from __future__ import annotations

from types import SimpleNamespace

from ambient.model.address import parse_endpoint
from ztunnel.telemetry.record import ConnectionRecord


def test_octets_run_from_client_to_server_whatever_side_the_application_is() -> None:
    where = parse_endpoint("10.0.0.1:1")
    record = ConnectionRecord("uid", where, where, inbound=True, now=0.0, unix=0.0)
    assert record.octets() == (0, 0)
    record.meter = SimpleNamespace(taken=1, given=2)
    assert record.octets() == (2, 1)
    record.app_is_client = True
    assert record.octets() == (1, 2)


def test_the_trace_id_is_read_from_a_trace_context_and_from_nothing_else() -> None:
    where = parse_endpoint("10.0.0.1:1")
    record = ConnectionRecord("uid", where, where, inbound=True, now=0.0, unix=0.0)
    assert record.trace_id == ""
    for text, wanted in (
        (f"00-{'ab' * 16}-{'cd' * 8}-00", "ab" * 16),
        (f"00-{'xy' * 16}-{'cd' * 8}-00", ""),
        ("x" * 55, ""),
        (f"00-{'ab' * 15}-{'cd' * 9}-00", ""),
    ):
        record.traceparent = text
        assert record.trace_id == wanted
