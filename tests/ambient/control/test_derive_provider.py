"""Which service a provider is, and why none."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ambient.control.derive_provider import Providers
from ambient.control.waypoints import Waypoints
from ambient.kube.mesh_config import MeshConfig, Provider
from ambient.model.workload import Service
from ambient.waypoint.front import Policy
from tests.support.builders import service as model_service
from tests.support.waypoint_records import TARGET, derived, policy, scene, service

HOST = "authz.shop.svc.cluster.local"
ME = Provider(name="me", kind="grpc", hostname=HOST, port=9000)
OURS = replace(model_service("authz", "10.96.0.9", (9000, 9000)), namespace="shop", hostname=HOST)
FOREIGN = replace(OURS, namespace="evil")
ASK = Policy("shop", "ask", "CUSTOM", provider="me")


def found(provider: Provider, *services: Service) -> Service | None:
    return Providers(MeshConfig(), "istio-system").service(provider, {one.key: one for one in services})


def test_a_name_of_kubernetes_says_its_namespace_whatever_others_claim() -> None:
    assert found(ME, OURS, FOREIGN) == OURS
    assert found(ME, FOREIGN) is None


def test_any_other_name_is_that_of_the_root_namespace_or_of_the_one_that_is_given() -> None:
    outside = replace(ME, hostname="authz.example.com")
    ours, theirs = (replace(one, hostname="authz.example.com") for one in (OURS, FOREIGN))
    root = replace(ours, namespace="istio-system")
    assert found(outside, root, ours, theirs) == root
    assert found(outside, theirs) is None, "whoever is first is not who is asked"
    assert found(replace(outside, namespace="shop"), root, ours, theirs) == ours
    mesh = MeshConfig({"me": outside})
    said = Providers(mesh, "istio-system").trouble("me", {theirs.key: theirs})
    assert "in namespace istio-system (for one of another namespace, service is NAMESPACE/authz.example.com)" in said


def test_a_service_without_the_port_is_none() -> None:
    assert found(replace(ME, port=9001), OURS) is None


@pytest.mark.parametrize(
    ("one", "asked"),
    [(ASK, True), (replace(ASK, dry_run=True), False), (replace(ASK, provider="other"), False)],
    ids=["custom", "dry run", "of nobody"],
)
def test_whom_policies_ask(one: Policy, asked: bool) -> None:
    providers = Providers(MeshConfig({"me": ME}), "istio-system")
    assert list(providers.of([one], {OURS.key: OURS})) == ([ME] if asked else [])
    assert list(providers.of([one], {})) == []


def test_a_policy_says_when_nobody_is_asked_and_no_more_when_somebody_is() -> None:
    made = Waypoints(("cluster.local",), "istio-system", "cluster.local")
    said: list[str] = []
    made.say = said.append
    key = "AuthorizationPolicy/shop/ask"

    def told() -> str:
        return " ".join(one.message for one in made.conditions(key))

    ask = policy("ask", "CUSTOM", TARGET, rules=[{}], provider={"name": "me"})
    authz = service("authz", {"name": "grpc", "port": 9000}, ip="10.96.0.9")
    without = scene(ask)
    made.update(without, derived(without))
    assert "the mesh config has no extensionProvider 'me'" in told()
    made.configure(MeshConfig({"me": ME}))
    assert said == [key]
    assert f"there is no Service {HOST} with port 9000" in told()
    both = scene(ask, authz)
    assert made.update(both, derived(both))
    assert told() == ""
    made.configure(MeshConfig(refused=("extensionProviders[0].name: is required",)))
    assert "extensionProviders[0].name: is required" in told()
