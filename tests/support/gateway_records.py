"""Objects of a mesh with an ingress gateway, and what is derived of them."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

from cryptography import x509

from ambient.control.derive_front import Fronts
from ambient.control.derive_gateway import Told
from ambient.kube.objects import Condition, Gateway, Records
from tests.support.builders import raw
from tests.support.mint import Leaf
from tests.support.tunnel_certs import Authority
from tests.support.waypoint_records import derived, scene

API = "gateway.networking.k8s.io/v1"
HTTP = {"name": "http", "port": 80, "protocol": "HTTP"}
PARENT = {"name": "front", "namespace": "shop"}
TO_WEB = {"backendRefs": [{"name": "web", "port": 80}]}


def ingress(*listeners: dict[str, Any], **annotations: str) -> dict[str, Any]:
    spec = {"gatewayClassName": "istio", "listeners": list(listeners or (HTTP,))}
    made = raw("Gateway", "front", spec, namespace="shop", annotations=annotations)
    return {**made, "apiVersion": API}


def route(
    name: str, *rules: dict[str, Any], hosts: tuple[str, ...] = (), namespace: str = "shop", **parent: Any
) -> dict[str, Any]:
    spec = {"parentRefs": [{**PARENT, **parent}], "hostnames": list(hosts), "rules": list(rules or (TO_WEB,))}
    return {**raw("HTTPRoute", name, spec, namespace=namespace), "apiVersion": API}


def tls_route(name: str, *hosts: str, to: str = "web", **parent: Any) -> dict[str, Any]:
    rules = [{"backendRefs": [{"name": to, "port": 80}]}]
    spec = {"parentRefs": [{**PARENT, **parent}], "hostnames": list(hosts), "rules": rules}
    return {**raw("TLSRoute", name, spec, namespace="shop"), "apiVersion": API}


def https(hostname: str = "", *secrets: str, **tls: Any) -> dict[str, Any]:
    refs = [{"name": one} for one in secrets or ("site",)]
    made = {"name": hostname.replace("*", "any") or "all", "port": 443, "protocol": "HTTPS"}
    return {**made, **({"hostname": hostname} if hostname else {}), "tls": {"certificateRefs": refs, **tls}}


def site(*names: str) -> Leaf:
    """A certificate of these hosts."""
    return Authority("sites").mint.leaf(names=[x509.DNSName(one) for one in names], usages=("server",))


def secret(name: str, leaf: Leaf, *, namespace: str = "shop", **texts: str) -> dict[str, Any]:
    found = {"tls.crt": leaf.chain, "tls.key": leaf.key, **texts}
    data = {key: base64.b64encode(text.encode()).decode() for key, text in found.items()}
    metadata = {"name": name, "namespace": namespace}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "kubernetes.io/tls", "data": data}


def fronts(found: Records) -> Fronts:
    made = Fronts(("cluster.local",), "istio-system")
    made.update(found, derived(found))
    return made


def told(*objects: dict[str, Any], made: Fronts | None = None) -> Told:
    """What is derived of the gateway in a scene with these objects."""
    found = scene(*objects)
    made = made or Fronts(("cluster.local",), "istio-system")
    made.update(found, derived(found))
    gateway = found.find(Gateway, "shop", "front")
    assert gateway is not None
    return made.told(gateway)


def statuses(conditions: tuple[Condition, ...]) -> Mapping[str, tuple[str, str]]:
    return {one.type: (one.status, one.reason) for one in conditions}
