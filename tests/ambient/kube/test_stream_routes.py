"""TCPRoute, TLSRoute and ReferenceGrant: what is read, and every rule that refuses one, with its reason."""

from __future__ import annotations

from typing import Any

import pytest

from ambient.kube.objects import ReferenceGrant, TCPRoute, TLSRoute, parse_object
from ambient.kube.routing import BackendRef, Grant, ParentRef, StreamRule
from tests.support.refusals import REMOVE, Bad, refused

GROUP = "gateway.networking.k8s.io"


def route(kind: str, version: str, **spec: Any) -> dict[str, Any]:
    refs = [{"name": "db-v1", "port": 5432, "weight": 9}, {"name": "db-v2", "port": 5432}]
    parents = [{"group": "", "kind": "Service", "name": "db", "port": 5432}]
    return {
        "apiVersion": f"{GROUP}/{version}",
        "kind": kind,
        "metadata": {"name": "db", "namespace": "shop"},
        "spec": {"parentRefs": parents, "rules": [{"backendRefs": refs}], **spec},
    }


TCP = route("TCPRoute", "v1alpha2")
TLS = route("TLSRoute", "v1", hostnames=["a.example.com", "*.b.example.com"])
GRANT: dict[str, Any] = {
    "apiVersion": f"{GROUP}/v1beta1",
    "kind": "ReferenceGrant",
    "metadata": {"name": "g", "namespace": "data"},
    "spec": {
        "from": [{"group": GROUP, "kind": "HTTPRoute", "namespace": "shop"}],
        "to": [{"group": "", "kind": "Service", "name": "db"}, {"group": "", "kind": "Service"}],
    },
}
RULES = [
    *((base, Bad("spec.rules", [], "needs exactly one rule")) for base in (TCP, TLS)),
    *((base, Bad("spec.rules.0.backendRefs", [], "needs at least one", at="spec.rules[0]")) for base in (TCP, TLS)),
    *((base, Bad("spec.rules.0.backendRefs.0.port", REMOVE, "is required")) for base in (TCP, TLS)),
    *((base, Bad("spec.rules.0.backendRefs.0.filters", [], "unknown field")) for base in (TCP, TLS)),
    *((base, Bad("spec.rules.0.matches", [], "unknown field")) for base in (TCP, TLS)),
    (TCP, Bad("spec.hostnames", ["a.b"], "nobody says in TCP what he asks for")),
    (TLS, Bad("spec.hostnames.0", "a b", "is not a DNS name")),
    (GRANT, Bad("spec.from", REMOVE, "is required")),
    (GRANT, Bad("spec.to", REMOVE, "is required")),
    (GRANT, Bad("spec.from.0.namespace", "A", "is not a DNS label")),
    (GRANT, Bad("spec.from.0.kind", REMOVE, "is required")),
    (GRANT, Bad("spec.to.0.group", REMOVE, "is required")),
    (GRANT, Bad("spec.to.0.namespace", "x", "unknown field")),
]


@pytest.mark.parametrize(("base", "bad"), RULES, ids=lambda one: f"{one.path}" if isinstance(one, Bad) else one["kind"])
def test_a_broken_rule_is_refused(base: dict[str, Any], bad: Bad) -> None:
    refused(base, bad)


def test_what_is_read() -> None:
    tcp, tls, grant = (parse_object(one, "x") for one in (TCP, TLS, GRANT))
    assert isinstance(tcp, TCPRoute)
    assert isinstance(tls, TLSRoute)
    assert isinstance(grant, ReferenceGrant)
    backends = (BackendRef("db-v1", 5432, 9), BackendRef("db-v2", 5432))
    assert tcp.parents == tls.parents == (ParentRef("", "Service", "db", "", 5432),)
    assert tcp.streams == (StreamRule(backends),)
    assert tls.streams == (StreamRule(backends, ("a.example.com", "*.b.example.com")),)
    source = (GROUP, "HTTPRoute", "shop")
    assert grant.grants == (Grant(*source, "", "Service", "db"), Grant(*source, "", "Service"))
