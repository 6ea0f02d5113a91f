"""A mesh of two nodes as dumps, and `ambient explain` on it."""

from __future__ import annotations

from typing import Any

from tests.support.cli import FakeMesh, Ran, ambient


def dumped(name: str, ip: str, node: str, **more: Any) -> dict[str, Any]:
    return {
        "uid": f"Kubernetes//Pod/shop/{name}",
        "name": name,
        "namespace": "shop",
        "serviceAccount": name,
        "workloadIps": [ip],
        "protocol": "HBONE",
        "node": node,
        "status": "Healthy",
        "clusterId": "Kubernetes",
        "networkMode": "Standard",
        "capacity": 1,
    } | more


ONLY_WEB = {
    "name": "only-web",
    "namespace": "shop",
    "scope": "WorkloadSelector",
    "action": "Allow",
    "rules": [[[{"principals": [{"Exact": "cluster.local/ns/shop/sa/web"}]}], [{"destinationPorts": [8080]}]]],
}
STRICT = {
    "name": "istio_converted_static_strict",
    "namespace": "istio-system",
    "scope": "WorkloadSelector",
    "action": "Deny",
    "rules": [[[{"notPrincipals": [{"Presence": []}]}]]],
}


def dump_of(policies: list[dict[str, Any]], *, waypoint: dict[str, Any] | None = None) -> dict[str, Any]:
    names = [f"{policy['namespace']}/{policy['name']}" for policy in policies]
    service: dict[str, Any] = {
        "name": "db",
        "namespace": "shop",
        "hostname": "db.shop.svc.cluster.local",
        "vips": ["/10.96.0.9"],
        "ports": {"80": 8080, "81": 8081},
        "canonical": True,
        "endpoints": {
            "Kubernetes//Pod/shop/db": {
                "workloadUid": "Kubernetes//Pod/shop/db",
                "port": {"80": 8080, "81": 8081},
                "status": "Healthy",
            }
        },
    }
    if waypoint:
        service["waypoint"] = waypoint
    return {
        "workloads": [
            dumped("web", "10.1.1.2", "n1"),
            dumped("batch", "10.1.1.3", "n1"),
            dumped("db", "10.1.2.2", "n2", authorizationPolicies=names),
            dumped("legacy", "10.1.2.3", "n2", protocol="TCP"),
            dumped("outside", "10.1.1.9", "n1", protocol="TCP"),
        ],
        "services": [service],
        "policies": [policy for policy in policies if policy.get("action")],
    }


def explain(source: str, destination: str, dump: dict[str, Any], *options: str) -> Ran:
    mesh = FakeMesh(names=("n1", "n2"))
    for node in mesh.names:
        mesh.answers[f"{node}/ztunnel", "/config_dump"] = dump
    return ambient(mesh, "explain", source, destination, *options)
