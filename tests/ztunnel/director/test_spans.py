"""A flow record as a span: one trace over both ends, parents where they belong, errors as errors."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.otlp_receiver import read_request
from ztunnel.director.spans import export_request, parse_traceparent, sampled, span_of
from ztunnel.ipc.flows import FlowRecord

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
CONTEXT = f"00-{TRACE}-{PARENT}-00"


def record(direction: str = "outbound", **more: Any) -> FlowRecord:
    plain: dict[str, Any] = {
        "event": "closed",
        "time_unix": 1_700_000_000.5,
        "node": "n1",
        "direction": direction,
        "source": "10.0.0.1:4000",
        "source_pod": "web",
        "source_namespace": "shop",
        "destination": "10.0.1.1:8080",
        "destination_pod": "db",
        "service": "db.shop.svc.cluster.local",
        "security": "mutual_tls",
        "bytes_sent": 70,
        "bytes_received": 3,
        "duration_ms": 250,
        "traceparent": CONTEXT,
    }
    return FlowRecord(**(plain | more))


def span(one: FlowRecord) -> dict[str, Any]:
    """As a receiver reads it."""
    spans, _ = read_request(export_request([span_of(one, random.getrandbits)], {}))
    return spans[0]


def test_the_dialling_side_owns_the_span_that_went_out_and_the_other_has_a_child() -> None:
    out, came = span(record()), span(record("inbound"))
    assert (out["traceId"], out["spanId"]) == (TRACE, PARENT)
    assert "parentSpanId" not in out
    assert (came["traceId"], came["parentSpanId"]) == (TRACE, PARENT)
    assert came["spanId"] != PARENT
    assert (out["kind"], came["kind"]) == (3, 2)


def test_it_lasts_as_long_as_the_connection_did_and_says_between_whom() -> None:
    one = span(record())
    assert int(one["endTimeUnixNano"]) - int(one["startTimeUnixNano"]) == 250_000_000
    assert one["endTimeUnixNano"] == "1700000000500000000"
    assert "status" not in one
    told = one["attributes"]
    assert (told["client.address"], told["client.port"]) == ("10.0.0.1", 4000)
    assert (told["server.address"], told["server.port"]) == ("10.0.1.1", 8080)
    assert (told["source.workload.pod"], told["destination.service"]) == ("web", "db.shop.svc.cluster.local")
    assert (told["bytes_sent"], told["bytes_received"]) == (70, 3)
    assert "policy" not in told


def test_a_denial_is_an_error_with_its_policy() -> None:
    denied = record("inbound", event="denied", flags="DENY", reason="denied-by", policy="shop/closed", detail="no")
    one = span(denied)
    assert one["status"] == {"code": 2, "message": "no"}
    assert (one["attributes"]["policy"], one["attributes"]["response_flags"]) == ("shop/closed", "DENY")


def test_a_tunnel_to_a_host_name_and_ipv6_are_told_as_they_are() -> None:
    told = span(record(destination="db.shop.svc.cluster.local:80", source="[fd00::1]:9"))["attributes"]
    assert told["server.address"] == "db.shop.svc.cluster.local:80"
    assert told["client.address"] == "fd00::1"


def test_without_a_context_a_trace_begins() -> None:
    one = span(record(traceparent=""))
    assert one["traceId"] != TRACE
    assert "parentSpanId" not in one


@pytest.mark.parametrize(
    "text",
    [
        "",
        TRACE,
        f"ff-{TRACE}-{PARENT}-00",
        f"00-{'0' * 32}-{PARENT}-00",
        f"00-{TRACE}-{'0' * 16}-00",
        f"00-{TRACE.upper()}-{PARENT}-00",
        f"00-{TRACE[:-1]}-{PARENT}-000",
        f"00-{TRACE}-{PARENT}-00-x",
        f"00-{TRACE[:-1]}g-{PARENT}-00",
    ],
)
def test_what_is_no_trace_context_is_none(text: str) -> None:
    assert parse_traceparent(text) is None
    assert parse_traceparent(CONTEXT) == (TRACE, PARENT)


def test_both_ends_of_a_trace_are_sampled_alike_and_in_the_share_asked_for() -> None:
    kept = 0
    for number in range(2_000):
        context = f"00-{random.Random(number).getrandbits(128) or 1:032x}-{PARENT}-00"
        ends = {
            sampled(span_of(record(way, traceparent=context), random.getrandbits), 0.25)
            for way in ("outbound", "inbound")
        }
        assert len(ends) == 1
        kept += ends == {True}
    assert 400 < kept < 600


@given(
    st.one_of(
        st.text(max_size=60), st.from_regex(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", fullmatch=True)
    ),
    st.text(),
)
def test_whatever_a_peer_sends_as_trace_context_the_span_is_one_a_receiver_takes(context: str, text: str) -> None:
    one = span(record("inbound", traceparent=context, event="failed", detail=text, destination=text, policy=text))
    assert (one.get("parentSpanId") is not None) is (parse_traceparent(context) is not None)
