"""What Kubernetes objects become, compared with what a real istiod made of the same objects, and case by case."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest

from ambient.control.derive import Derived, derive
from ambient.control.derive_workload import REDIRECTION, workload_name
from ambient.control.derive_world import DeriveSettings
from ambient.kube.objects import KINDS, Condition, Records, parse_object
from ambient.model.policy import Authorization
from ambient.model.workload import Health, Locality, NetworkMode, Port, Service, TunnelProtocol, Workload
from ambient.xds.codec import decode
from ambient.xds.wire import message
from tests.support.builders import pod, raw, raw_pod, records

GOLDEN = Path(__file__).parents[2] / "golden"
SETTINGS = DeriveSettings()


def golden_records() -> Records:
    objects = json.loads((GOLDEN / "kubernetes.json").read_text())
    return records(*(parse_object(one, "golden", observed=True) for one in objects if one["kind"] in KINDS))


def golden_values(name: str) -> dict[str, Any]:
    response = message("envoy.service.discovery.v3.DeltaDiscoveryResponse").FromString(
        (GOLDEN / "xds" / name).read_bytes()
    )
    return {r.name: decode(r.resource.type_url, r.name, r.resource.value) for r in response.resources}


@pytest.fixture(scope="module")
def golden() -> Derived:
    return derive(golden_records(), SETTINGS)


def test_workloads_are_those_of_istiod(golden: Derived) -> None:
    expected = {n: w for n, w in golden_values("000-address.pb").items() if isinstance(w, Workload)}
    assert len(expected) == 23
    assert dict(golden.workloads) == {name: comparable(workload) for name, workload in expected.items()}


def comparable(workload: Workload) -> Workload:
    return replace(workload, services=dict(workload.services))


def test_services_are_those_of_istiod(golden: Derived) -> None:
    expected = {n: s for n, s in golden_values("000-address.pb").items() if isinstance(s, Service)}
    assert len(expected) == 20
    assert dict(golden.services) == expected


def test_addresses_that_istiod_gave_to_entries_stay(golden: Derived) -> None:
    assert golden.allocations == {}


def test_policies_are_those_of_istiod(golden: Derived) -> None:
    expected = {n: p for n, p in golden_values("001-authorization.pb").items() if isinstance(p, Authorization)}
    assert len(expected) == 10
    assert dict(golden.policies) == expected


def test_conditions_are_those_of_istiod_or_say_more(golden: Derived) -> None:
    for one in golden_records().by_key.values():
        for condition in one.conditions:
            if condition.type not in ("ZtunnelAccepted", "WaypointAccepted", "istio.io/WaypointBound"):
                continue
            (ours,) = golden.conditions[one.key]
            assert (ours.type, ours.status, ours.reason) == (condition.type, condition.status, condition.reason)
            assert ours.message.startswith(condition.message)


def test_every_policy_key_that_a_workload_names_is_sent(golden: Derived) -> None:
    named = {key for workload in golden.workloads.values() for key in workload.authorization_policies}
    assert named <= set(golden.policies)
    assert len(named) == 5


# --- case by case


def one(*objects: Any, **settings: Any) -> Workload:
    (workload,) = derive(records(*objects), replace(SETTINGS, **settings)).workloads.values()
    return workload


def test_a_pod_is_a_workload() -> None:
    workload = one(raw_pod("web", "10.0.0.1", "fd00::1", namespace="shop"))
    assert workload.uid == "Kubernetes//Pod/shop/web"
    assert workload.addresses == (ip_address("10.0.0.1"), ip_address("fd00::1"))
    assert (workload.node, workload.service_account, workload.workload_name) == ("n1", "web", "web")
    assert (workload.tunnel_protocol, workload.status) == (TunnelProtocol.NONE, Health.HEALTHY)


def with_status(**status: Any) -> dict[str, Any]:
    built = raw_pod()
    built["status"] = {**built["status"], **status}
    return built


@pytest.mark.parametrize(
    "gone",
    [with_status(phase="Succeeded"), with_status(phase="Failed"), with_status(podIPs=[])],
    ids=["done", "failed", "no ip"],
)
def test_a_pod_that_cannot_be_reached_is_no_workload(gone: dict[str, Any]) -> None:
    assert derive(records(gone), SETTINGS).workloads == {}


@pytest.mark.parametrize("bad", [with_status(ready=False), raw_pod(deletionTimestamp="2026-01-01T00:00:00Z")])
def test_a_pod_that_is_not_ready_or_leaves_is_unhealthy(bad: dict[str, Any]) -> None:
    assert one(bad).status is Health.UNHEALTHY


@pytest.mark.parametrize(
    ("metadata", "protocol", "native"),
    [
        ({"annotations": {REDIRECTION: "enabled"}}, TunnelProtocol.HBONE, False),
        ({"annotations": {REDIRECTION: "pending"}}, TunnelProtocol.NONE, False),
        ({"labels": {"istio.io/dataplane-mode": "ambient"}}, TunnelProtocol.NONE, False),
        ({"labels": {"networking.istio.io/tunnel": "http"}}, TunnelProtocol.HBONE, True),
    ],
)
def test_hbone_starts_with_the_annotation_or_the_pods_own_tunnel(
    metadata: dict[str, Any], protocol: TunnelProtocol, native: bool
) -> None:
    workload = one(raw_pod(**metadata))
    assert (workload.tunnel_protocol, workload.native_tunnel) == (protocol, native)


def test_a_host_network_pod_says_so() -> None:
    built = raw_pod()
    built["spec"]["hostNetwork"] = True
    assert one(built).network_mode is NetworkMode.HOST_NETWORK


def test_settings_are_in_every_workload_and_service() -> None:
    labels = {"topology.istio.io/network": "east"}
    objects = [raw_pod(), raw("Service", "web", {"clusterIP": "10.96.0.1", "ports": [{"port": 80}]})]
    objects.append(raw("Namespace", "root", labels=labels))
    derived = derive(records(*objects), DeriveSettings("c1", "td", "root", "mesh.local"))
    (workload,) = derived.workloads.values()
    assert (workload.uid, workload.cluster_id, workload.trust_domain, workload.network) == (
        "c1//Pod/default/a",
        "c1",
        "td",
        "east",
    )
    (service,) = derived.services.values()
    assert (service.hostname, service.addresses[0].network) == ("web.default.svc.mesh.local", "east")


def test_locality_comes_from_the_node() -> None:
    labels = {
        "topology.kubernetes.io/region": "r",
        "topology.kubernetes.io/zone": "z",
        "topology.istio.io/subzone": "s",
    }
    assert one(raw("Node", "n1", labels=labels), raw_pod()).locality == Locality("r", "z", "s")
    assert one(raw("Node", "n2", labels=labels), raw_pod()).locality == Locality()


@pytest.mark.parametrize(
    ("labels", "owner", "expected"),
    [
        ({}, None, "a"),
        ({"pod-template-hash": "5d"}, ("ReplicaSet", "web-5d"), "web"),
        ({}, ("ReplicaSet", "web-5d"), "web-5d"),
        ({}, ("StatefulSet", "web"), "web"),
        ({}, ("Job", "backup-29384756"), "backup"),
        ({}, ("Job", "once-1"), "once-1"),
        ({}, ("Node", "n1"), "a"),
        ({"service.istio.io/workload-name": "w"}, ("ReplicaSet", "x"), "w"),
    ],
)
def test_the_workload_is_named_after_what_made_the_pod(
    labels: dict[str, str], owner: tuple[str, str] | None, expected: str
) -> None:
    references = [{"kind": owner[0], "name": owner[1], "controller": True}] if owner else []
    assert workload_name(pod("a", labels=labels, ownerReferences=references)) == expected


@pytest.mark.parametrize(
    ("labels", "name", "revision"),
    [
        ({}, "a", "latest"),
        ({"app": "x", "version": "v2"}, "x", "v2"),
        ({"app": "x", "app.kubernetes.io/name": "y", "app.kubernetes.io/version": "v3", "version": "v2"}, "y", "v3"),
        (
            {
                "app": "x",
                "service.istio.io/canonical-name": "z",
                "service.istio.io/canonical-revision": "v4",
                "version": "1",
            },
            "z",
            "v4",
        ),
    ],
)
def test_canonical_names(labels: dict[str, str], name: str, revision: str) -> None:
    workload = one(raw_pod(labels=labels))
    assert (workload.canonical_name, workload.canonical_revision) == (name, revision)


def service(name: str, selector: dict[str, str], **spec: Any) -> dict[str, Any]:
    return raw("Service", name, {"clusterIP": "10.96.0.1", "ports": [{"port": 80}], "selector": selector, **spec})


def test_a_pod_is_behind_the_services_of_its_namespace_whose_whole_selector_fits() -> None:
    elsewhere = service("other", {"app": "web"})
    elsewhere["metadata"]["namespace"] = "other"
    workload = one(
        raw_pod(labels={"app": "web", "tier": "front"}),
        service("both", {"app": "web", "tier": "front"}),
        service("app", {"app": "web"}, ports=[{"port": 80, "targetPort": "http"}]),
        service("more", {"app": "web", "tier": "back"}),
        service("none", {}),
        elsewhere,
        raw("Service", "ext", {"type": "ExternalName", "externalName": "x.example", "selector": {"app": "web"}}),
    )
    assert dict(workload.services) == {
        "default/app.default.svc.cluster.local": (Port(80, 8080),),
        "default/both.default.svc.cluster.local": (Port(80, 80),),
    }


def test_a_service_that_asks_for_a_waypoint_is_told_that_there_is_none() -> None:
    asking = service("web", {})
    asking["metadata"]["labels"] = {"istio.io/use-waypoint": "wp", "istio.io/use-waypoint-namespace": "infra"}
    derived = derive(records(asking), SETTINGS)
    assert derived.conditions["Service/default/web"] == (
        Condition("istio.io/WaypointBound", "False", "WaypointIsNotReady", 'waypoint "infra/wp" is not ready'),
    )


def test_a_namespace_asks_for_its_services_and_a_service_may_opt_out() -> None:
    opted_out = service("out", {})
    opted_out["metadata"]["labels"] = {"istio.io/use-waypoint": "none"}
    space = raw("Namespace", "default", labels={"istio.io/use-waypoint": "wp"})
    derived = derive(records(space, service("web", {}), opted_out), SETTINGS)
    assert derived.conditions["Service/default/web"][0].reason == "WaypointIsNotReady"
    assert derived.conditions["Service/default/out"] == ()


def test_the_same_records_in_another_order_give_the_same_result() -> None:
    snapshot = golden_records()
    turned = Records(snapshot.revision, dict(list(snapshot.by_key.items())[::-1]))
    assert derive(turned, SETTINGS) == derive(snapshot, SETTINGS)
