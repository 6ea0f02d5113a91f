"""Which BackendTLSPolicy a port has, what is said of each, and that nothing is sent without one that can be had."""

from __future__ import annotations

from typing import Any

import pytest

from ambient.control.derive_front import Fronts
from ambient.kube.objects import Gateway, parse_object
from ambient.waypoint.front import FrontPort
from tests.ambient.control.test_derive_origination import CA, LEAF, addresses, look, rule, secret
from tests.support.builders import raw
from tests.support.waypoint_records import gateway

ROOTS = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ca", "namespace": "shop"}}
ROOTS |= {"data": {"ca.crt": CA.roots}}
WAYPOINT = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "waypoint", "namespace": "shop"}
Said = dict[str, tuple[str, str]]


def policy(name: str = "p", *, section: str = "", age: int = 0, ref: Any = None, **validation: Any) -> dict[str, Any]:
    target = {"group": "", "kind": "Service", "name": "web", **({"sectionName": section} if section else {})}
    check = {
        "hostname": "web.example.com",
        "caCertificateRefs": [ref or {"group": "", "kind": "ConfigMap", "name": "ca"}],
    }
    if "wellKnownCACertificates" in validation:
        del check["caCertificateRefs"]
    made = raw(
        "BackendTLSPolicy", name, {"targetRefs": [target], "validation": {**check, **validation}}, namespace="shop"
    )
    made["metadata"]["creationTimestamp"] = f"2026-01-01T00:00:{age:02}Z"
    return {**made, "apiVersion": "gateway.networking.k8s.io/v1"}


def ports(
    *objects: dict[str, Any], system: str = "", made: Fronts | None = None
) -> tuple[tuple[FrontPort, ...], dict[str, Said]]:
    """The ports, and by the name of each policy what is said for the waypoint."""
    fronts, web = look(*objects, system=system, made=made)
    said = {}
    for key, ancestors in fronts.originations.ancestors().items():
        (one,) = ancestors
        assert (one.ref, one.controller) == (WAYPOINT, "istio.io/mesh-controller")
        said[key.rpartition("/")[2]] = {found.type: (found.status, found.reason) for found in one.conditions}
    return web.ports, said


GOOD: Said = {"Accepted": ("True", "Accepted"), "ResolvedRefs": ("True", "ResolvedRefs")}


def test_a_service_is_spoken_to_as_its_policy_says() -> None:
    (http, tcp), said = ports(ROOTS, policy())
    assert http.tls is not None
    assert http.tls == tcp.tls
    assert (http.tls.sni, http.tls.names, http.tls.own) == ("web.example.com", ("web.example.com",), None)
    assert http.tls.authority is not None
    assert http.tls.authority.chain.strip() == CA.roots.strip()
    assert said == {"p": GOOD}
    alternatives = [{"type": "URI", "uri": "spiffe://x/y"}]
    (http, _), _ = ports(policy(wellKnownCACertificates="System", subjectAltNames=alternatives), system=CA.roots)
    assert http.tls is not None
    assert (http.tls.sni, http.tls.names) == ("web.example.com", ("spiffe://x/y",))


def test_one_for_a_port_goes_before_one_for_all_and_the_older_before_the_younger() -> None:
    made = (policy("all", age=1), policy("own", section="http", age=2, hostname="own.example.com"))
    (http, tcp), said = ports(ROOTS, *made, policy("late", age=3, hostname="late.example.com"))
    assert http.tls is not None
    assert tcp.tls is not None
    assert (http.tls.sni, tcp.tls.sni) == ("own.example.com", "web.example.com")
    assert said["all"] == said["own"] == GOOD
    assert said["late"]["Accepted"] == ("False", "Conflicted")


def test_it_goes_before_the_tls_of_a_destination_rule() -> None:
    (http, _), _ = ports(ROOTS, secret(), policy(), rule({"mode": "SIMPLE", "credentialName": "partner"}))
    assert http.tls is not None
    assert http.tls.sni == "web.example.com"


@pytest.mark.parametrize(
    ("changes", "accepted", "resolved"),
    [
        ({"ref": {"group": "", "kind": "ConfigMap", "name": "x"}}, "NoValidCACertificate", "InvalidCACertificateRef"),
        ({"ref": {"group": "", "kind": "Pod", "name": "x"}}, "NoValidCACertificate", "InvalidKind"),
        ({"wellKnownCACertificates": "System"}, "NoValidCACertificate", "InvalidCACertificateRef"),
    ],
    ids=["no such ConfigMap", "of no such kind", "no authorities of the system"],
)
def test_without_an_authority_nothing_is_sent_and_it_is_said(
    changes: dict[str, Any], accepted: str, resolved: str
) -> None:
    found, said = ports(ROOTS, policy(**changes))
    assert [addresses(one) for one in found] == [[], []]
    assert said["p"] == {"Accepted": ("False", accepted), "ResolvedRefs": ("False", resolved)}


def test_an_authority_that_has_gone_bad_is_believed_no_longer() -> None:
    made = Fronts(("cluster.local",), "istio-system")
    for text, good in ((CA.roots, True), ("", False), (CA.roots, True), ("x", False)):
        found, said = ports({**ROOTS, "data": {"ca.crt": text}}, policy(), made=made)
        assert [bool(addresses(one)) for one in found] == [good, good]
        assert (said["p"] == GOOD) is good
        if not good:
            assert said["p"]["Accepted"] == ("False", "NoValidCACertificate")
            assert said["p"]["ResolvedRefs"] == ("False", "InvalidCACertificateRef")


def test_a_section_that_there_is_none_of_is_said() -> None:
    (http, tcp), said = ports(ROOTS, policy(section="nothing"))
    assert (http.tls, tcp.tls) == (None, None)
    assert said["p"]["Accepted"] == ("False", "TargetNotFound")


@pytest.mark.parametrize(
    ("ref", "secrets", "reason"),
    [
        ({"name": "own"}, [secret("own")], ""),
        ({"name": "own"}, [], "InvalidClientCertificateRef"),
        ({"name": "own", "kind": "Pod"}, [secret("own")], "InvalidClientCertificateRef"),
        ({"name": "own", "group": "example.com"}, [secret("own")], "InvalidClientCertificateRef"),
        ({"name": "own"}, [secret("own", tls_crt="x")], "InvalidClientCertificateRef"),
        ({"name": "own", "namespace": "vault"}, [secret("own", "vault")], "RefNotPermitted"),
    ],
    ids=["good", "none", "no Secret", "of another group", "unusable", "somebody else's"],
)
def test_a_gateway_proves_itself_with_its_own_certificate_or_sends_nothing(
    ref: dict[str, str], secrets: list[dict[str, Any]], reason: str
) -> None:
    own = gateway()
    own["spec"]["tls"] = {"backend": {"clientCertificateRef": ref}}
    fronts, web = look(ROOTS, policy(), own, *secrets)
    (http, _) = web.ports
    record = parse_object(own, "test")
    assert isinstance(record, Gateway)
    (said,) = fronts.originations.proof(record)
    assert (said.type, said.status) == ("ResolvedRefs", "False" if reason else "True")
    if reason:
        assert (said.reason, addresses(http)) == (reason, [])
    else:
        assert http.tls is not None
        assert http.tls.own is not None
        assert http.tls.own.key == LEAF.key
