"""Events of single packets become flow records that name pods, policy and reason; what was not told leaves a gap."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any

import pytest

from ambient.agent.watch_packets import Packets
from ambient.datapath.layout import Counter
from ambient.model.address import IpAddress
from ambient.model.outcome import Denied, Reason
from ambient.model.workload import Workload
from tests.support.deny_tables import FakeRing, told
from tests.support.told_flows import flow

WEB = Workload(uid="web", name="web", namespace="shop", service_account="seller")
RULES = {1: Denied(Reason.DENIED_BY, "shop/no")}


@dataclass
class Scene:
    ring: FakeRing = field(default_factory=FakeRing)
    counters: dict[Counter, int] = field(default_factory=dict)
    workloads: dict[IpAddress, Workload] = field(default_factory=lambda: {ip_address("10.0.0.5"): WEB})

    def __post_init__(self) -> None:
        self.packets = Packets("n1", self.ring, self._counters, self.workloads.get, RULES.get, epoch=lambda: 1000.0)

    def _counters(self) -> Mapping[Counter, int]:
        return self.counters

    def shown(self, last: int = 100) -> list[dict[str, Any]]:
        self.packets.look()
        return [json.loads(line) for line in self.packets.lines(last).splitlines()]


def test_a_refusal_names_pod_policy_and_reason() -> None:
    scene = Scene()
    scene.ring.waiting.append(told(5.0, rule=1))
    (flow,) = scene.shown()
    assert flow == {
        "event": "denied",
        "time_unix": 1005.0,
        "node": "n1",
        "direction": "inbound",
        "source": "10.9.9.9:4000",
        "destination": "10.0.0.5:80",
        "destination_pod": "web",
        "destination_namespace": "shop",
        "destination_principal": "spiffe://cluster.local/ns/shop/sa/seller",
        "flags": "DENY",
        "reason": "denied-by",
        "policy": "shop/no",
        "detail": "refused in the kernel: plain text",
        "sequence": 1,
    }


def test_the_identity_is_told_of_a_pod_that_opens_and_of_nobody_who_only_has_an_address() -> None:
    scene = Scene()
    scene.workloads[ip_address("10.9.9.9")] = WEB
    scene.ring.waiting += [
        told(1.0, Counter.REFUSED_POLICY_OUT, arriving=False),
        told(2.0, Counter.REFUSED_POLICY_IN),
    ]
    out, arriving = scene.shown()
    assert out["source_principal"] == "spiffe://cluster.local/ns/shop/sa/seller"
    assert out["reason"] == "refused_policy_out"
    assert "source_principal" not in arriving


def test_data_in_the_clear_is_told_each_time_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene()
    with caplog.at_level(logging.ERROR):
        for _ in range(3):
            scene.ring.waiting.append(told(1.0, Counter.CLEAR_OUT, arriving=False))
            scene.packets.look()
    assert [flow["reason"] for flow in scene.shown()] == ["clear-text"] * 3
    assert len(caplog.records) == 1


def test_what_was_not_told_is_a_gap_in_the_numbers() -> None:
    scene = Scene()
    scene.ring.waiting.append(told(1.0))
    scene.packets.look()
    scene.counters[Counter.EVENT_THINNED] = 7
    scene.packets.look()
    scene.ring.waiting.append(told(2.0))
    assert [flow["sequence"] for flow in scene.shown()] == [1, 9]


def test_flows_are_told_beside_packets_in_the_order_of_time() -> None:
    scene = Scene()
    scene.ring.waiting.append(told(6.0))
    scene.ring.flows.append(flow())
    assert [(one["event"], one["sequence"]) for one in scene.shown()] == [("closed", 1), ("denied", 2)]


def test_only_the_last_are_shown_if_so_asked() -> None:
    scene = Scene()
    scene.ring.waiting += [told(float(second)) for second in range(5)]
    assert [flow["time_unix"] for flow in scene.shown(last=2)] == [1003.0, 1004.0]
