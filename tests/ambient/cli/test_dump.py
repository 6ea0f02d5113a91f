"""The dump of a real ztunnel becomes the model; a damaged one is refused by place."""

from __future__ import annotations

import json
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

import pytest

from ambient.cli.dump import parse_dump
from ambient.errors import InvalidInput
from ambient.model.workload import (
    GatewayAddress,
    Health,
    HealthPolicy,
    IpFamilies,
    LoadBalancingMode,
    NamespacedHostname,
    NetworkMode,
    Port,
    Scope,
    TunnelProtocol,
)
from tests.support.cli import GOLDEN

DUMP = parse_dump(GOLDEN.read_bytes(), "n1")
WORKLOADS = {(w.namespace, w.name): w for w in DUMP.workloads}
SERVICES = {s.key: s for s in DUMP.services}


def test_every_entry_of_the_golden_dump_is_read() -> None:
    raw = json.loads(GOLDEN.read_text())
    assert (len(DUMP.workloads), len(DUMP.services), len(DUMP.policies)) == (
        len(raw["workloads"]),
        len(raw["services"]),
        len(raw["policies"]),
    )


def test_a_workload_keeps_identity_address_protocol_and_policies() -> None:
    workload = WORKLOADS["mesh", "srv-x"]
    assert str(workload.identity) == "spiffe://cluster.local/ns/mesh/sa/srv-x"
    assert workload.addresses == (ip_address("10.244.2.5"),)
    assert workload.tunnel_protocol is TunnelProtocol.HBONE
    assert workload.node == "n2"
    assert WORKLOADS["plain", "client"].tunnel_protocol is TunnelProtocol.NONE
    assert WORKLOADS["mesh", "notready"].status is Health.UNHEALTHY
    assert WORKLOADS["mesh", "hostnet"].network_mode is NetworkMode.HOST_NETWORK


def test_the_ports_of_a_workloads_services_come_from_the_services_endpoints() -> None:
    services = WORKLOADS["mesh", "srv-x"].services
    assert services["mesh/srv-x.mesh.svc.cluster.local"][0] == Port(80, 8080)
    assert services["mesh/headless.mesh.svc.cluster.local"] == (Port(8080, 8080),)


def test_a_service_keeps_addresses_waypoint_and_balancing() -> None:
    waypointed = SERVICES["mesh/withwp.mesh.svc.cluster.local"]
    assert waypointed.waypoint == GatewayAddress(NamespacedHostname("mesh", "wp.mesh.svc.cluster.local"), 15008)
    assert str(waypointed.addresses[0]) == "/10.96.107.26"
    assert waypointed.ip_families is IpFamilies.IPV4_ONLY
    near = SERVICES["mesh/samenode.mesh.svc.cluster.local"].load_balancing
    assert near.mode is LoadBalancingMode.FAILOVER
    assert near.routing_preference == (Scope.NETWORK, Scope.REGION, Scope.ZONE, Scope.SUBZONE, Scope.NODE)
    assert SERVICES["mesh/both.mesh.svc.cluster.local"].load_balancing.health_policy is HealthPolicy.ALLOW_ALL


def test_a_range_of_addresses_keeps_its_length() -> None:
    ranged = [a for s in DUMP.services for a in s.addresses if a.prefix_length is not None]
    assert [str(address) for address in ranged] == ["/10.8.0.0/16"]


def test_lists_may_also_be_objects_as_istioctl_accepts() -> None:
    raw = json.loads(GOLDEN.read_text())
    raw["workloads"] = {entry["uid"]: entry for entry in raw["workloads"]}
    assert parse_dump(json.dumps(raw), "n1").workloads == DUMP.workloads


def _spoil(change: Callable[[dict[str, Any]], object]) -> str:
    raw = json.loads(GOLDEN.read_text())
    change(raw)
    return json.dumps(raw)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "not JSON"),
        ("[]", "expected an object"),
        (_spoil(lambda d: d.update(workloads=7)), "workloads"),
        (_spoil(lambda d: d["workloads"][0].pop("name")), "workloads[0]"),
        (_spoil(lambda d: d["workloads"][0].update(protocol="SMOKE")), "protocol is not one of HBONE, TCP"),
        (_spoil(lambda d: d["workloads"][0].update(workloadIps=["10.1"])), "not an IP address"),
        (_spoil(lambda d: d["workloads"][0].update(capacity=True)), "capacity is not a number"),
        (_spoil(lambda d: d["services"][0].update(vips=["/nowhere"])), "not an IP address"),
        (_spoil(lambda d: d["services"][0].update(ports={"http": 1})), "not a port map"),
        (_spoil(lambda d: d["services"][3].update(loadBalancer={"routingPreferences": ["Moon"]})), "'Moon'"),
    ],
)
def test_a_damaged_dump_is_refused_by_place(text: str, complaint: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_dump(text, "n1")
    assert complaint in str(refused.value)
