"""What objects of a real API server are derived to, and that it takes what is written to them. Needs no mesh in it."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from ambient.control.derive import Derivation
from ambient.control.derive_world import DeriveSettings
from ambient.kube.api.source import ApiSource
from ambient.kube.objects import Records, ServiceEntry
from tests.cluster.test_api import reading, server, until
from tests.support.kube import Kube

__all__ = ["server"]

SPACE = f"derive-{uuid.uuid4().hex[:8]}"


def raw(version: str, kind: str, name: str, spec: dict[str, Any] | None = None, **labels: str) -> dict[str, Any]:
    metadata = {"name": name, "namespace": SPACE, "labels": labels}
    return {"apiVersion": version, "kind": kind, "metadata": metadata, **({"spec": spec} if spec else {})}


ASKING = {"istio.io/use-waypoint": "wp"}
ENTRY = raw(
    "networking.istio.io/v1",
    "ServiceEntry",
    "api",
    {"hosts": ["api.example.com"], "resolution": "DNS", "ports": [{"number": 443, "name": "tls", "protocol": "TLS"}]},
)
MACHINE = raw("networking.istio.io/v1", "WorkloadEntry", "vm", {"address": "172.16.0.9"}, **ASKING)
LISTENERS = [{"name": "mesh", "port": 15008, "protocol": "HBONE"}]
WAYPOINT = raw(
    "gateway.networking.k8s.io/v1",
    "Gateway",
    "wp",
    {"gatewayClassName": "istio-waypoint", "listeners": LISTENERS},
    **{"istio.io/waypoint-for": "workload"},
)
BY_HAND = raw("v1", "Service", "hand", {"ports": [{"name": "web", "port": 80}]})
SLICE = {
    **raw("discovery.k8s.io/v1", "EndpointSlice", "hand-1", **{"kubernetes.io/service-name": "hand"}),
    "addressType": "IPv4",
    "endpoints": [{"addresses": ["172.16.0.7"]}],
    "ports": [{"name": "web", "port": 8080}],
}


@pytest.fixture
def space(server: Kube) -> Iterator[Kube]:
    with server.namespace(SPACE, mesh=False):
        server.apply(ENTRY, MACHINE, WAYPOINT, BY_HAND, SLICE)
        yield server


def test_addresses_and_waypoints_are_written_to_their_objects_and_served(space: Kube) -> None:
    async def scenario(source: ApiSource, changes: AsyncIterator[Records]) -> None:
        derivation = Derivation(DeriveSettings())
        records = await until(changes, lambda r: r.find(ServiceEntry, SPACE, "api") is not None)
        derived = derivation.update(records)
        by_hand = f"Kubernetes/discovery.k8s.io/EndpointSlice/{SPACE}/hand-1/172.16.0.7"
        assert f"{SPACE}/hand.{SPACE}.svc.cluster.local" in derived.workloads[by_hand].services
        assert derived.services[f"{SPACE}/api.example.com"].addresses == ()
        key = f"ServiceEntry/{SPACE}/api"
        given = [(host, str(address)) for host, address in derived.allocations[key]]
        source.sink.addresses(records.by_key[key], given)
        await until(changes, lambda r: (one := r.find(ServiceEntry, SPACE, "api")) and one.allocated)
        status = {"addresses": [{"type": "Hostname", "value": f"wp.{SPACE}.svc.cluster.local"}]}
        words = ("patch", "gateways.gateway.networking.k8s.io", "wp", "--subresource=status", "--type=merge")
        await asyncio.to_thread(space.run, "-n", SPACE, *words, "-p", json.dumps({"status": status}))
        records = await until(
            changes, lambda r: derivation.update(r).conditions[f"WorkloadEntry/{SPACE}/vm"][0].status == "True"
        )
        derived = derivation.update(records)
        assert [str(one.ip) for one in derived.services[f"{SPACE}/api.example.com"].addresses] == [
            address for _, address in given
        ]
        (condition,) = derived.conditions[f"WorkloadEntry/{SPACE}/vm"]
        source.sink.conditions(records.by_key[f"WorkloadEntry/{SPACE}/vm"], (condition,))
        await _written(space, condition.reason)

    reading(space.kubeconfig, scenario)


async def _written(kube: Kube, reason: str) -> None:
    async with asyncio.timeout(60):
        while True:
            found = await asyncio.to_thread(kube.get, "workloadentries.networking.istio.io", "vm", SPACE)
            reasons = [one["reason"] for one in found.get("status", {}).get("conditions", [])]
            if reasons == [reason]:
                return
