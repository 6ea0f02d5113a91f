"""BackendTLSPolicy: what is read, and every rule that refuses one, with its reason."""

from __future__ import annotations

from typing import Any

import pytest

from ambient.kube.backend_tls import TlsTarget
from ambient.kube.networking import ObjectRef
from ambient.kube.objects import BackendTLSPolicy, parse_object
from tests.support.refusals import REMOVE, Bad, changed, refused

GROUP = "gateway.networking.k8s.io"
POLICY: dict[str, Any] = {
    "apiVersion": f"{GROUP}/v1",
    "kind": "BackendTLSPolicy",
    "metadata": {"name": "api", "namespace": "shop"},
    "spec": {
        "targetRefs": [
            {"group": "", "kind": "Service", "name": "api", "sectionName": "https"},
            {"group": "", "kind": "Service", "name": "other"},
        ],
        "validation": {
            "hostname": "api.example.com",
            "caCertificateRefs": [{"group": "", "kind": "ConfigMap", "name": "ca"}],
            "subjectAltNames": [
                {"type": "Hostname", "hostname": "a.example.com"},
                {"type": "URI", "uri": "spiffe://x/y"},
            ],
        },
        "options": {"example.com/x": "y"},
    },
}
CA = POLICY["spec"]["validation"]["caCertificateRefs"][0]
RULES = (
    Bad("spec.targetRefs", REMOVE, "needs at least one entry"),
    Bad("spec.targetRefs", [{"group": "", "kind": "Service", "name": f"n{i}"} for i in range(17)], "at most 16"),
    Bad("spec.targetRefs.1", POLICY["spec"]["targetRefs"][0], "an entry is there twice", "spec.targetRefs"),
    Bad("spec.targetRefs.0.name", REMOVE, "is required"),
    Bad("spec.targetRefs.0.kind", REMOVE, "is required"),
    Bad("spec.targetRefs.0.group", REMOVE, "is required"),
    Bad("spec.targetRefs.0.namespace", "x", "unknown field"),
    Bad("spec.validation", REMOVE, "is required"),
    Bad("spec.validation.hostname", REMOVE, "is required"),
    Bad("spec.validation.hostname", "*.example.com", "is not a DNS name"),
    Bad("spec.validation.wellKnownCACertificates", "System", "and not both", "spec.validation"),
    Bad("spec.validation.caCertificateRefs", REMOVE, "needs either", "spec.validation"),
    Bad("spec.validation.caCertificateRefs", [{**CA, "name": f"n{i}"} for i in range(9)], "at most 8"),
    Bad("spec.validation.caCertificateRefs.0.kind", REMOVE, "is required"),
    Bad("spec.validation.caCertificateRefs.0.name", "a,b", "not a DNS name"),
    Bad("spec.validation.wellKnownCACertificates", "Mine", "is not one of"),
    Bad("spec.validation.subjectAltNames.0.type", "IP", "is not one of"),
    Bad("spec.validation.subjectAltNames.0.hostname", REMOVE, "is required"),
    Bad("spec.validation.subjectAltNames.0.uri", "spiffe://x", "does not go with type Hostname"),
    Bad("spec.validation.subjectAltNames.1.uri", "x", "is no absolute URI"),
    Bad("spec.validation.subjectAltNames", [{"type": "URI", "uri": "x://y"}] * 6, "at most 5"),
    Bad("spec.options", {f"k{i}": "v" for i in range(17)}, "at most 16"),
    Bad("spec.more", 1, "unknown field"),
)


@pytest.mark.parametrize("bad", RULES, ids=lambda one: one.path)
def test_a_broken_rule_is_refused(bad: Bad) -> None:
    refused(POLICY, bad)


@pytest.mark.parametrize("version", ["v1", "v1alpha3"])
def test_what_is_read(version: str) -> None:
    found = parse_object({**POLICY, "apiVersion": f"{GROUP}/{version}"}, "x")
    assert isinstance(found, BackendTLSPolicy)
    assert found.targets == (TlsTarget("", "Service", "api", "https"), TlsTarget("", "Service", "other"))
    assert (found.hostname, found.names) == ("api.example.com", ("a.example.com", "spiffe://x/y"))
    assert (found.authorities, found.system) == ((ObjectRef("", "ConfigMap", "ca"),), False)
    system = changed(POLICY, "spec.validation.caCertificateRefs", REMOVE)
    system["spec"]["validation"]["wellKnownCACertificates"] = "System"
    believed = parse_object(system, "x")
    assert isinstance(believed, BackendTLSPolicy)
    assert believed.system
