"""Whose TLS is begun with what, what is said of it, and that nothing is sent where it cannot be had."""

from __future__ import annotations

import base64
from dataclasses import replace
from typing import Any

import pytest

from ambient.control.derive_evidence import EvidenceStore
from ambient.control.derive_front import Fronts
from ambient.control.derive_origination import ORIGINATED, Asker, Originations
from ambient.kube.networking import DestinationRule, Gateway
from ambient.kube.objects import Condition, RefusedObject
from ambient.model.workload import Service
from ambient.waypoint.front import Front, FrontPort, Subset
from tests.support.builders import raw
from tests.support.tunnel_certs import Authority
from tests.support.waypoint_records import derived, scene

CA = Authority("partners").mint
LEAF = CA.leaf("spiffe://partner.example.com/egress", usages=("client",))
BOTH, INSIDE = ["10.1.0.1", "10.1.0.2"], ["10.1.0.1"]
HOST = "web.shop.svc.cluster.local"
KEY = "DestinationRule/shop/r"


def secret(name: str = "partner", namespace: str = "shop", **texts: str) -> dict[str, Any]:
    found = texts or {"tls.crt": LEAF.chain, "tls.key": LEAF.key, "ca.crt": CA.roots}
    data = {key.replace("_", "."): base64.b64encode(text.encode()).decode() for key, text in found.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": namespace}, "data": data}


def rule(tls: dict[str, Any], *, namespace: str = "shop", host: str = HOST, **spec: Any) -> dict[str, Any]:
    policy = {"tls": tls, **spec.pop("policy", {})}
    made = raw("DestinationRule", "r", {"host": host, "trafficPolicy": policy, **spec}, namespace=namespace)
    return {**made, "apiVersion": "networking.istio.io/v1"}


def entry(*hosts: str, resolution: str = "STATIC", **spec: Any) -> dict[str, Any]:
    ports = [{"number": 80, "name": "http", "protocol": "HTTP"}]
    made = raw(
        "ServiceEntry",
        "api",
        {"hosts": list(hosts), "resolution": resolution, "addresses": ["10.8.0.1"], "ports": ports, **spec},
        namespace="shop",
        labels={"istio.io/use-waypoint": "waypoint"},
    )
    return {**made, "apiVersion": "networking.istio.io/v1"}


def look(
    *objects: dict[str, Any],
    refused: tuple[RefusedObject, ...] = (),
    system: str = "",
    made: Fronts | None = None,
) -> tuple[Fronts, Front]:
    """`made`: that have seen something else before."""
    found = scene(*objects, refused=refused)
    told = derived(found)
    fronts = made or Fronts(("cluster.local",), "istio-system", roots=system)
    fronts.update(found, told)
    gateway = found.find(Gateway, "shop", "waypoint")
    assert gateway is not None
    view = fronts.view(told.waypoints["shop/waypoint"], gateway)
    return fronts, next(one for one in view.fronts if one.hostname == HOST)


def addresses(part: FrontPort | Subset) -> list[str]:
    return [str(one.address) for one in part.backends]


def said(fronts: Fronts, key: str = KEY) -> Condition:
    (found,) = fronts.route_conditions()[key]
    assert found.type == ORIGINATED
    return found


def test_a_secret_of_the_waypoints_namespace_has_the_certificate_and_who_is_believed() -> None:
    fronts, web = look(secret(), rule({"mode": "MUTUAL", "credentialName": "partner"}))
    tls = web.ports[0].tls
    assert tls is not None
    assert tls.own is not None
    assert tls.authority is not None
    assert (tls.sni, tls.names) == (HOST, (HOST,))
    assert (tls.own.chain, tls.own.key) == (LEAF.chain, LEAF.key)
    assert tls.authority.chain.strip() == CA.roots.strip()
    assert addresses(web.ports[0]) == BOTH
    assert (said(fronts).status, said(fronts).reason) == ("True", "Originated")
    assert LEAF.key not in repr(web)


def test_the_authority_may_be_in_a_secret_beside_or_the_systems() -> None:
    own = {"tls.crt": LEAF.chain, "tls.key": LEAF.key}
    mutual = rule({"mode": "MUTUAL", "credentialName": "partner"})
    _, beside = look(secret(**own), secret("partner-cacert", **{"ca.crt": CA.roots}), mutual)
    assert beside.ports[0].tls is not None
    assert beside.ports[0].tls.authority is not None
    for tls in ({"mode": "SIMPLE"}, {"mode": "SIMPLE", "caCertificates": "/etc/ssl/certs/ca-certificates.crt"}):
        _, web = look(rule(tls), system=CA.roots)
        assert web.ports[0].tls is not None
        assert web.ports[0].tls.authority is not None
        assert web.ports[0].tls.authority.chain == CA.roots
    said_so = rule({"mode": "MUTUAL", "credentialName": "partner", "caCertificates": "system"})
    _, both = look(secret(**own), said_so, system=CA.roots)
    assert both.ports[0].tls is not None
    _, named = look(secret(**own, cacert=CA.roots), mutual)
    assert named.ports[0].tls is not None


@pytest.mark.parametrize("beside", [None, {"ca.crt": ""}, {"ca.pem": "x"}])
def test_the_whole_web_vouches_for_no_partner_unless_that_is_said(beside: dict[str, str] | None) -> None:
    own = {"tls.crt": LEAF.chain, "tls.key": LEAF.key, "ca.crt": ""}
    more = () if beside is None else (secret("partner-cacert", **beside),)
    asked = rule({"mode": "MUTUAL", "credentialName": "partner"})
    fronts, web = look(secret(**own), *more, asked, system=CA.roots)
    assert (addresses(web.ports[0]), web.ports[0].tls) == ([], None)
    assert said(fronts).reason == "InvalidCACertificateRef"


def test_names_are_the_rules_then_the_entrys_then_the_one_that_is_asked_for() -> None:
    def names(given: dict[str, Any], **spec: Any) -> tuple[str, tuple[str, ...]]:
        made = entry("a.example.com", endpoints=[{"address": "10.9.0.1"}], **spec)
        found = scene(made, rule({"mode": "SIMPLE", **given}, host="a.example.com"))
        told = derived(found)
        fronts = Fronts(("cluster.local",), "istio-system", roots=CA.roots)
        fronts.update(found, told)
        gateway = found.find(Gateway, "shop", "waypoint")
        assert gateway is not None
        view = fronts.view(told.waypoints["shop/waypoint"], gateway)
        tls = next(one for one in view.fronts if one.hostname == "a.example.com").ports[0].tls
        assert tls is not None
        return tls.sni, tls.names

    assert names({}) == ("a.example.com", ("a.example.com",))
    assert names({"sni": "b.example.com"}) == ("b.example.com", ("b.example.com",))
    assert names({}, subjectAltNames=["c.example.com"]) == ("a.example.com", ("c.example.com",))
    assert names({"subjectAltNames": ["d.example.com"]}, subjectAltNames=["c"])[1] == ("d.example.com",)


def test_whoever_answers_is_believed_only_where_that_is_written_and_it_is_said() -> None:
    fronts, web = look(rule({"mode": "SIMPLE", "insecureSkipVerify": True}))
    assert web.ports[0].tls is not None
    assert web.ports[0].tls.authority is None
    assert (said(fronts).status, said(fronts).reason) == ("True", "NotVerified")


BROKEN: dict[str, tuple[dict[str, Any], str, str]] = {
    "no authorities of the system": ({"mode": "SIMPLE"}, "InvalidCACertificateRef", "knows no authorities"),
    "no certificate named": ({"mode": "MUTUAL"}, "InvalidCertificateRef", "tls.credentialName: is required"),
    "no such Secret": ({"mode": "MUTUAL", "credentialName": "x"}, "InvalidCertificateRef", "there is no Secret shop/x"),
    "what is no name": ({"mode": "MUTUAL", "credentialName": "a,b"}, "InvalidCertificateRef", "not a DNS name"),
    "no authority in it": ({"mode": "SIMPLE", "credentialName": "x"}, "InvalidCACertificateRef", "no ca.crt in Secret"),
    "a junk authority": ({"mode": "SIMPLE", "credentialName": "junk"}, "InvalidCACertificateRef", "no certificate"),
    "a junk certificate": ({"mode": "MUTUAL", "credentialName": "junk"}, "InvalidCertificateRef", "tls.credentialName"),
    "a file of a certificate": ({"mode": "MUTUAL", "clientCertificate": "/c"}, "NotSupported", "tls.clientCertificate"),
    "a file of a key": ({"mode": "MUTUAL", "privateKey": "/k"}, "NotSupported", "tls.privateKey"),
    "a file of authorities": ({"mode": "SIMPLE", "caCertificates": "/ca"}, "NotSupported", "tls.caCertificates"),
    "a file of what is revoked": ({"mode": "SIMPLE", "caCrl": "/crl"}, "NotSupported", "tls.caCrl"),
    "a name that is too long": ({"mode": "SIMPLE", "credentialName": "partner", "sni": "a" * 256}, "Invalid", "255"),
}


@pytest.mark.parametrize("case", BROKEN)
def test_what_cannot_be_had_is_said_and_nothing_is_sent(case: str) -> None:
    tls, reason, why = BROKEN[case]
    junk = secret("junk", **{"ca.crt": "junk", "tls.crt": "junk", "tls.key": "junk"})
    fronts, web = look(secret(), junk, rule(tls))
    assert (addresses(web.ports[0]), web.ports[0].tls) == ([], None)
    assert (said(fronts).status, said(fronts).reason) == ("False", reason)
    assert why in said(fronts).message
    assert "nothing is sent" in said(fronts).message


def test_the_meshs_own_tls_is_not_spoken_outside_of_it() -> None:
    fronts, web = look(rule({"mode": "ISTIO_MUTUAL"}))
    assert (addresses(web.ports[0]), web.ports[0].tls) == (INSIDE, None)
    assert said(fronts).reason == "NotSupported"


def test_ports_and_subsets_have_their_own() -> None:
    plain = {"portLevelSettings": [{"port": {"number": 9000}, "tls": {"mode": "DISABLE"}}]}
    simple = {"mode": "SIMPLE", "credentialName": "partner"}
    subsets = [
        {"name": "all", "labels": {}},
        {"name": "own", "labels": {}, "trafficPolicy": {"tls": {"mode": "DISABLE"}}},
        {"name": "lost", "labels": {}, "trafficPolicy": {"tls": {"mode": "SIMPLE", "credentialName": "x"}}},
    ]
    _, web = look(secret(), rule(simple, policy=plain, subsets=subsets))
    http, tcp = web.ports
    assert (http.tls is not None, tcp.tls) == (True, None)
    assert [one.tls is not None for one in http.subsets] == [True, False, False]
    assert [addresses(one) for one in http.subsets] == [BOTH, BOTH, []]


def test_a_rule_of_another_namespace_uses_the_waypoints_secrets_where_that_says_so_alone() -> None:
    theirs = rule({"mode": "SIMPLE", "credentialName": "partner"}, namespace="istio-system")
    _, web = look(secret(), theirs)
    assert web.ports[0].tls is not None, "the root namespace speaks for all"
    made = entry("a.example.com", endpoints=[{"address": "10.9.0.1"}])
    made["metadata"] |= {"namespace": "team"}
    made["metadata"]["labels"] = {"istio.io/use-waypoint": "waypoint", "istio.io/use-waypoint-namespace": "shop"}
    asked = rule({"mode": "SIMPLE", "credentialName": "partner"}, namespace="team", host="a.example.com")
    source = {"group": "networking.istio.io", "kind": "DestinationRule", "namespace": "team"}
    spec = {"from": [source], "to": [{"group": "", "kind": "Secret", "name": "partner"}]}
    grant = raw("ReferenceGrant", "g", spec, namespace="shop")
    grant["apiVersion"] = "gateway.networking.k8s.io/v1beta1"
    door = raw("Gateway", "waypoint", {}, namespace="shop")
    allowed = {"namespaces": {"from": "All"}}
    door |= {"apiVersion": "gateway.networking.k8s.io/v1"}
    door["spec"] = {
        "gatewayClassName": "istio-waypoint",
        "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE", "allowedRoutes": allowed}],
    }
    door["status"] = {"addresses": [{"type": "Hostname", "value": "waypoint.shop.svc.cluster.local"}]}
    for granted, reason in (([], "RefNotPermitted"), ([grant], "Originated")):
        found = scene(made, asked, secret(), door, *granted, without=("waypoint",))
        told = derived(found)
        fronts = Fronts(("cluster.local",), "istio-system")
        fronts.update(found, told)
        gateway = found.find(Gateway, "shop", "waypoint")
        assert gateway is not None
        fronts.view(told.waypoints["shop/waypoint"], gateway)
        assert said(fronts, "DestinationRule/team/r").reason == reason


def test_a_secret_that_becomes_unusable_leaves_the_last_good_one() -> None:
    asked = rule({"mode": "MUTUAL", "credentialName": "partner"})
    fronts, _ = look(secret(), asked)
    found = scene(asked, secret(**{"tls.crt": "junk", "tls.key": "junk", "ca.crt": CA.roots}))
    told = derived(found)
    fronts.update(found, told)
    gateway = found.find(Gateway, "shop", "waypoint")
    assert gateway is not None
    view = fronts.view(told.waypoints["shop/waypoint"], gateway)
    tls = next(one for one in view.fronts if one.hostname == HOST).ports[0].tls
    assert tls is not None
    assert tls.own is not None
    assert tls.own.key == LEAF.key


def test_a_service_that_nobody_asks_tls_for_is_the_same_object_as_before() -> None:
    fronts, web = look()
    again = replace(web)
    assert again == web
    assert web.ports[0].tls is None
    assert fronts.originations.ancestors() == {}


def test_a_defect_with_one_service_leaves_it_without_endpoints_and_nobody_else(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Failing(Originations):
        def _applied(self, service: Service, ports: Any, rule: Any, asker: Asker) -> Any:
            raise RuntimeError("no")

    _, web = look()
    found = scene(rule({"mode": "SIMPLE"}, subsets=[{"name": "all", "labels": {}}]))
    service = next(one for one in derived(found).services.values() if one.hostname == HOST)
    (asked,) = found.of(DestinationRule)
    failing = Failing("istio-system", CA.roots, EvidenceStore())
    ports = tuple(replace(one, subsets=(Subset("all", one.backends),)) for one in web.ports)
    made = failing.applied(service, ports, asked, Asker("shop"))
    assert [addresses(port) for port in made] == [[]] * 2
    assert [addresses(one) for port in made for one in port.subsets] == [[]] * 2
    assert failing.conditions()[KEY][0].status == "False"
    assert "cannot be made" in caplog.text
