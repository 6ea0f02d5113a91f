"""Spans of connections, told over HTTP to a receiver on each node: one trace per connection, both ends of it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from ambient.lab.names import NETNS_DIR
from ambient.netns import entered
from tests.support.journey import BATCH, BYTES, FAR, NEAR, WEB, Journey, journey, policy
from tests.support.lab import until
from tests.support.otlp_receiver import Receiver

PORT = 4318
SPIFFE = "spiffe://cluster.local/ns/shop/sa/"
Receivers = dict[str, Receiver]


def receiver(mesh: Journey, node: str) -> Receiver:
    """Listens on the loopback device of a node."""
    descriptor = os.open(NETNS_DIR / mesh.lab.names.node(node), os.O_RDONLY | os.O_CLOEXEC)
    try:
        with entered(descriptor):
            return Receiver(("127.0.0.1", PORT))
    finally:
        os.close(descriptor)


@pytest.fixture(scope="module")
def traced() -> Iterator[tuple[Journey, Receivers]]:
    # A connection that the kernel refuses is none that ztunnel could tell of.
    env = {"ztunnel:OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{PORT}", "agent:AMBIENT_KERNEL_POLICY": "false"}
    with journey("tracing", env=env) as mesh, ExitStack() as stack:
        yield mesh, {node: stack.enter_context(receiver(mesh, node)) for node in ("n1", "n2")}


def spans(receivers: Receivers, node: str, name: str, size: int) -> list[dict[str, Any]]:
    """Of connections whose client sent so many octets."""
    found = [span for span in receivers[node].spans if span["name"] == f"ztunnel {name}"]
    return [span for span in found if span["attributes"]["bytes_sent"] == size]


@pytest.mark.parametrize(("server", "there", "size"), [(FAR, "n2", 12_347), (NEAR, "n1", 12_349)])
def test_a_connection_is_a_trace_of_two_spans(
    traced: tuple[Journey, Receivers], server: str, there: str, size: int
) -> None:
    mesh, receivers = traced
    name = server.partition("/")[2]
    assert mesh.stage.move(WEB, f"{name}.shop", BYTES, 1, size) == 2 * size
    until("both ends told it", lambda: spans(receivers, "n1", "outbound", size))
    until("both ends told it", lambda: spans(receivers, there, "inbound", size))
    (client,), (served,) = spans(receivers, "n1", "outbound", size), spans(receivers, there, "inbound", size)
    assert served["traceId"] == client["traceId"]
    assert served["parentSpanId"] == client["spanId"]
    for one in (client, served):
        told = one["attributes"]
        assert (told["source.principal"], told["destination.principal"]) == (f"{SPIFFE}web", f"{SPIFFE}{name}")
        assert (told["bytes_sent"], told["bytes_received"]) == (size, 2 * size)
        assert "status" not in one


def test_what_policy_denies_is_an_error_that_names_the_policy(traced: tuple[Journey, Receivers]) -> None:
    mesh, receivers = traced

    def denied() -> list[dict[str, Any]]:
        return [span for span in receivers["n2"].spans if span["attributes"].get("policy") == "shop/only-web"]

    assert not denied()
    mesh.lab.apply(policy("only-web", "ALLOW", [{"from": [{"source": {"principals": [SPIFFE[9:] + "web"]}}]}]))
    assert not mesh.reaches(BATCH, FAR)
    until("the denial was told", denied)
    assert denied()[0]["attributes"]["source.principal"] == f"{SPIFFE}batch"
    assert denied()[0]["attributes"]["response_flags"] == "DENY"
    assert denied()[0]["status"]["code"] == 2
