"""What a waypoint stands in front of: its services with their endpoints, and the policies that name them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ambient.control.derive_front import Fronts
from ambient.errors import InvalidInput
from ambient.kube.networking import Gateway
from ambient.kube.objects import Records, RefusedObject
from ambient.waypoint.front import Front, Protocol, View
from tests.support.builders import raw
from tests.support.waypoint_records import TARGET, derived, gateway, policy, scene, service, tokens

WAYPOINT = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "waypoint"}
CLASS = {"group": "gateway.networking.k8s.io", "kind": "GatewayClass", "name": "istio-waypoint"}


def view(found: Records, name: str = "waypoint") -> View:
    fronts, told = Fronts(("cluster.local",), "istio-system"), derived(found)
    fronts.update(found, told)
    record = found.find(Gateway, "shop", name)
    assert record is not None
    return fronts.view(told.waypoints[f"shop/{name}"], record)


def web(found: Records) -> Front:
    (one,) = view(found).fronts
    return one


def test_a_service_that_uses_it_with_the_endpoints_that_are_ready() -> None:
    found = web(scene())
    assert (found.hostname, [str(ip) for ip in found.addresses]) == ("web.shop.svc.cluster.local", ["10.96.0.1"])
    http, tcp = found.ports
    assert (http.number, http.protocol, tcp.number, tcp.protocol) == (80, Protocol.HTTP, 9000, Protocol.TCP)
    assert [(one.authority, one.identity) for one in http.backends] == [
        ("10.1.0.1:8080", "spiffe://cluster.local/ns/shop/sa/web"),
        ("10.1.0.2:8080", ""),
    ]


def test_a_service_that_uses_another_or_none_is_not_its_own() -> None:
    more = (gateway("second"), service("db", {"port": 1}, ip="10.96.0.2", **{"istio.io/use-waypoint": "second"}))
    found = scene(*more, service("free", {"port": 1}, ip="10.96.0.3", **{"istio.io/use-waypoint": "none"}))
    assert [front.hostname for front in view(found).fronts] == ["web.shop.svc.cluster.local"]
    assert [front.hostname for front in view(found, "second").fronts] == ["db.shop.svc.cluster.local"]


@pytest.mark.parametrize(
    ("target", "namespace", "applies"),
    [
        (TARGET, "shop", True),
        ({"kind": "Service", "name": "db"}, "shop", False),
        (TARGET, "other", False),
        (WAYPOINT, "shop", True),
        ({**WAYPOINT, "name": "second"}, "shop", False),
        (CLASS, "istio-system", True),
        (CLASS, "shop", False),
    ],
)
def test_a_policy_applies_to_what_it_names(target: dict[str, Any], namespace: str, applies: bool) -> None:
    both = (policy("p", "DENY", target, namespace=namespace), tokens("t", target, namespace=namespace))
    found = web(scene(*both))
    assert [one.name for one in found.policies] == (["p"] if applies else [])
    assert [one.issuer for one in found.tokens] == (["https://t.example.com"] if applies else [])


def test_the_tokens_of_all_that_name_a_service_are_believed_and_of_those_that_name_none_no_more() -> None:
    found = scene(tokens("t", TARGET), tokens("u", WAYPOINT))
    assert [one.issuer for one in web(found).tokens] == ["https://t.example.com", "https://u.example.com"]
    fronts, told = Fronts(("cluster.local",), "istio-system"), derived(found)
    fronts.update(found, told)
    fronts.update(scene(tokens("u", WAYPOINT)), told)
    record = found.find(Gateway, "shop", "waypoint")
    assert record is not None
    (front,) = fronts.view(told.waypoints["shop/waypoint"], record).fronts
    assert [one.issuer for one in front.tokens] == ["https://u.example.com"]


def broken(spec: dict[str, Any], kind: str = "AuthorizationPolicy", **metadata: Any) -> RefusedObject:
    raw = {"metadata": {"name": "p", "namespace": "shop", **metadata}, "spec": spec}
    return RefusedObject(kind, "shop", "p", InvalidInput("p", "spec.x", "unknown"), raw)


@pytest.mark.parametrize(
    ("spec", "closes"),
    [
        ({"targetRefs": [TARGET], "action": "DENY", "x": 1}, True),
        ({"targetRefs": [{"kind": "Service", "name": "db"}], "x": 1}, False),
        ({"targetRefs": "web"}, True),
        ({"targetRefs": [TARGET], "action": "AUDIT"}, False),
        ({"selector": {}}, False),
        ({"targetRefs": [], "x": 1}, False),
        ({"targetRef": None, "targetRefs": [TARGET], "x": 1}, True),
        ({"targetRef": None, "targetRefs": [{"kind": "Service", "name": "db"}], "x": 1}, False),
    ],
)
def test_a_policy_that_cannot_be_read_closes_what_it_names(spec: dict[str, Any], closes: bool) -> None:
    found = web(scene(refused=(broken(spec),)))
    assert [(one.action, one.rules) for one in found.policies] == ([("ALLOW", ())] if closes else [])


def test_one_of_the_root_namespace_that_cannot_be_read_at_all_may_have_been_for_every_waypoint() -> None:
    found = web(scene(refused=(replace(broken({"targetRefs": "class"}), namespace="istio-system"),)))
    assert [(one.action, one.rules) for one in found.policies] == [("ALLOW", ())]


def test_a_dry_run_that_cannot_be_read_closes_nothing() -> None:
    dry = broken({"targetRefs": [TARGET], "x": 1}, annotations={"istio.io/dry-run": "true"})
    assert web(scene(refused=(dry,))).policies == ()


def test_a_number_that_is_there_for_tcp_and_udp_is_one_port_of_its_protocol() -> None:
    """Twice in the table of CONNECT routes it would be refused, and with it everybody's."""
    udp, tcp = {"name": "dns", "port": 53, "protocol": "UDP"}, {"name": "dns-tcp", "port": 53}
    for ports in ((udp, tcp), (tcp, udp)):
        (one,) = web(scene(service("web", *ports), without=("web",))).ports
        assert (one.number, one.protocol) == (53, Protocol.TCP)


def entry(name: str, host: str, namespace: str = "shop") -> dict[str, Any]:
    ports = [{"number": 80, "name": "http", "protocol": "HTTP"}]
    spec = {"hosts": [host], "addresses": ["10.96.0.1"], "ports": ports, "resolution": "STATIC"}
    labels = {"istio.io/use-waypoint": "waypoint", "istio.io/use-waypoint-namespace": "shop"}
    made = raw("ServiceEntry", name, spec, namespace=namespace, labels=labels)
    return {**made, "apiVersion": "networking.istio.io/v1"}


def test_what_has_its_address_from_kubernetes_goes_before_entries_that_claim_it() -> None:
    found = view(scene(entry("web2", "a.example")))
    assert {front.hostname: front.rank for front in found.fronts} == {"web.shop.svc.cluster.local": 0, "a.example": 1}


@pytest.mark.parametrize(("spec", "closes"), [({"targetRefs": [TARGET], "x": 1}, True), ({"selector": {}}, False)])
def test_tokens_rules_that_cannot_be_read_close_what_they_name(spec: dict[str, Any], closes: bool) -> None:
    found = web(scene(refused=(broken(spec, "RequestAuthentication"),)))
    assert [(one.action, one.rules) for one in found.policies] == ([("ALLOW", ())] if closes else [])


@pytest.mark.parametrize(("kind", "group", "counts"), [("ServiceEntry", "networking.istio.io", 1), ("Service", "", 0)])
def test_a_policy_for_a_service_entry_is_judged_for_it_and_none_for_a_service_of_its_name(
    kind: str, group: str, counts: int
) -> None:
    spec = {
        "hosts": ["ext.example.com"],
        "addresses": ["240.240.0.9"],
        "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}],
        "resolution": "STATIC",
        "endpoints": [{"address": "10.9.9.9"}],
    }
    entry = raw("ServiceEntry", "ext", spec, namespace="shop", labels={"istio.io/use-waypoint": "waypoint"})
    target = {"group": group, "kind": kind, "name": "ext"}
    found = scene({**entry, "apiVersion": "networking.istio.io/v1"}, policy("p", "DENY", target, rules=[{}]))
    made = derived(found)
    fronts = Fronts(("cluster.local",), "istio-system")
    fronts.update(found, made)
    gateway = found.find(Gateway, "shop", "waypoint")
    assert gateway is not None
    view = fronts.view(made.waypoints["shop/waypoint"], gateway)
    assert [len(one.policies) for one in view.fronts if one.hostname == "ext.example.com"] == [counts]
