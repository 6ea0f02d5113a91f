"""Which Secrets and ConfigMaps are read because of Gateways: those that ours refer to, and may."""

from __future__ import annotations

from typing import Any

import pytest

from ambient.control.gateway_evidence import wanted
from ambient.kube.objects import Record, Records, parse_object
from ambient.kube.routing import GATEWAY_CONTROLLER
from tests.ambient.control.test_derive_backend_tls import policy
from tests.support.builders import raw
from tests.support.gateway_records import API, HTTP, https, ingress
from tests.support.waypoint_records import gateway

CLIENTS = {"frontendValidation": {"caCertificateRefs": [{"kind": "ConfigMap", "name": "enterprise"}]}}


def records(*objects: dict[str, Any]) -> Records:
    found: list[Record] = [parse_object(one, "test") for one in objects]
    return Records(by_key={one.key: one for one in found})


def names(found: Records, *classes: str) -> list[tuple[str, str, str]]:
    return sorted((one.kind, one.namespace, one.name) for one in wanted(found, classes, "istio-system"))


def grant(namespace: str, name: str) -> dict[str, Any]:
    spec = {
        "from": [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": "shop"}],
        "to": [{"group": "", "kind": "Secret", "name": name}],
    }
    made = raw("ReferenceGrant", "g", spec, namespace=namespace)
    return {**made, "apiVersion": "gateway.networking.k8s.io/v1beta1"}


def test_a_gateway_of_ours_has_its_certificates_and_authorities_read() -> None:
    found = records(ingress(HTTP, https("", "site", **CLIENTS)))
    assert names(found, "istio") == [("ConfigMap", "shop", "enterprise"), ("Secret", "shop", "site")]


def test_the_certificate_that_a_gateway_has_for_applications_is_read_for_waypoints_as_well() -> None:
    for made in (ingress(HTTP), gateway()):
        made["spec"]["tls"] = {"backend": {"clientCertificateRef": {"name": "own"}}}
        assert names(records(made), "istio") == [("Secret", "shop", "own")]


def test_for_a_gateway_of_somebody_elses_nothing_is_read() -> None:
    front = ingress(https())
    assert names(records(front)) == []
    ours: dict[str, Any] = {"apiVersion": API, "kind": "GatewayClass", "metadata": {"name": "istio"}}
    ours["spec"] = {"controllerName": GATEWAY_CONTROLLER}
    assert names(records(front, ours)) == [("Secret", "shop", "site")]
    theirs = {**ours, "spec": {"controllerName": "istio.io/gateway-controller"}}
    assert names(records(front, theirs)) == []


def test_another_namespace_has_to_permit_it() -> None:
    front = ingress(https(certificateRefs=[{"name": "site", "namespace": "vault"}]))
    assert names(records(front), "istio") == []
    assert names(records(front, grant("vault", "other")), "istio") == []
    assert names(records(front, grant("vault", "site")), "istio") == [("Secret", "vault", "site")]


def test_what_holds_no_certificate_is_not_read() -> None:
    front = ingress(https(certificateRefs=[{"kind": "Pod", "name": "x"}, {"group": "example.com", "name": "y"}]))
    assert names(records(front), "istio") == []


def test_what_a_proxy_begins_tls_with_is_read_where_its_rule_may_name_it() -> None:
    def rule(namespace: str, credential: str) -> dict[str, Any]:
        tls = {"mode": "MUTUAL", "credentialName": credential}
        policy = {"portLevelSettings": [{"port": {"number": 80}, "tls": tls}]}
        made = raw("DestinationRule", credential, {"host": "a.b", "trafficPolicy": policy}, namespace=namespace)
        return {**made, "apiVersion": "networking.istio.io/v1"}

    rules = (rule("shop", "own"), rule("istio-system", "root"), rule("team", "theirs"), policy())
    secrets = [("Secret", "shop", name) for name in ("own", "own-cacert", "root", "root-cacert")]
    assert names(records(gateway(), *rules)) == [("ConfigMap", "shop", "ca"), *secrets]
    assert names(records(*rules)) == [], "no proxy of ours is there to begin it"


@pytest.mark.parametrize("name", ["a,b1", "a=b", "a/b", "UPPER", "a b", "a" * 254, "a" * 250, ".."])
def test_what_is_no_name_of_an_object_is_not_asked_for(name: str) -> None:
    spec = {"host": "a.b", "trafficPolicy": {"tls": {"mode": "SIMPLE", "credentialName": name}}}
    rule = {**raw("DestinationRule", "r", spec, namespace="shop"), "apiVersion": "networking.istio.io/v1"}
    kept = [name] if name == "a" * 250 else []
    assert names(records(gateway(), rule)) == [("Secret", "shop", one) for one in kept]


def test_what_clients_are_served_with_is_wanted_first() -> None:
    spec = {"host": "a.b", "trafficPolicy": {"tls": {"mode": "SIMPLE", "credentialName": "a"}}}
    rule = {**raw("DestinationRule", "r", spec, namespace="shop"), "apiVersion": "networking.istio.io/v1"}
    found = wanted(records(ingress(https("", "site")), rule), ("istio",), "istio-system")
    assert [one.name for one in found] == ["site", "a", "a-cacert"]
