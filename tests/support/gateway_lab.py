"""A lab with an ingress gateway before meshed pods: one service of its own, one behind a waypoint; clients outside."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.lab import SLEEP, LabUnderTest, lab_under_test, namespace_yaml, object_yaml, pod_yaml
from tests.support.waypoint_lab import (
    GATEWAY_VERSION,
    POLICY_VERSION,
    account_yaml,
    gateway_yaml,
    ready,
    server_yaml,
    service_yaml,
)

GATEWAY = "shop/front"
POD = "shop/front-istio"
IDENTITY = "cluster.local/ns/shop/sa/front-istio"
HTTP = {"name": "http", "port": 80, "targetPort": 8080}
LISTENER = {"name": "http", "port": 80, "protocol": "HTTP"}
PARENT = {"name": "front"}


def ingress_yaml(*listeners: dict[str, Any], name: str = "front", annotations: dict[str, str] | None = None) -> str:
    spec = {"gatewayClassName": "istio", "listeners": list(listeners or (LISTENER,))}
    notes = {"ambient.mesh/node": "n1", **(annotations or {})}
    return object_yaml(GATEWAY_VERSION, "Gateway", name, "shop", annotations=notes, spec=spec)


def route_yaml(
    name: str, *rules: dict[str, Any], hosts: tuple[str, ...] = (), namespace: str = "shop", **parent: Any
) -> str:
    """On the gateway; `parent`: more fields of the reference to it."""
    refs = [{**PARENT, "namespace": "shop", **parent}]
    spec = {"parentRefs": refs, "hostnames": list(hosts), "rules": list(rules)}
    return object_yaml(GATEWAY_VERSION, "HTTPRoute", name, namespace, spec=spec)


def to(name: str, **fields: Any) -> dict[str, Any]:
    """A rule that sends everything to a service."""
    return {"backendRefs": [{"name": name, "port": 80}], **fields}


def at_gateway(name: str, action: str, *rules: dict[str, Any], kind: str = "AuthorizationPolicy", **more: Any) -> str:
    """A policy for the gateway."""
    ref = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "front"}
    spec: dict[str, Any] = {"targetRefs": [ref], **more}
    if action:
        spec |= {"action": action, "rules": list(rules)}
    return object_yaml(POLICY_VERSION, kind, name, "shop", spec=spec)


SCENE = (
    namespace_yaml("shop", **{"istio.io/dataplane-mode": "ambient"})
    + namespace_yaml("outside")
    + "".join(map(account_yaml, ("web", "client")))
    + service_yaml("web", HTTP, app="web", tier="open")
    + server_yaml("web-1", tier="open")
    + pod_yaml("outside/client", SLEEP, node="n2")
)


def guarded_yaml() -> str:
    """A service behind a waypoint."""
    labels = {"istio.io/use-waypoint": "waypoint"}
    spec = {"selector": {"app": "web", "tier": "guarded"}, "ports": [HTTP]}
    made = object_yaml("v1", "Service", "guarded", "shop", labels=labels, spec=spec)
    return made + server_yaml("guarded-1", tier="guarded") + gateway_yaml()


def settled(lab: LabUnderTest, text: str, *, name: str = GATEWAY) -> None:
    """Apply, and wait until the gateway has taken it."""
    lab.apply(text)
    ready(lab, name)


def removed(lab: LabUnderTest, text: str) -> None:
    lab.delete(text)
    ready(lab, GATEWAY)


@contextmanager
def gateway_lab(more: str = "", *listeners: dict[str, Any], **annotations: str) -> Iterator[LabUnderTest]:
    with lab_under_test("gatew") as lab:
        lab.up(SCENE + ingress_yaml(*listeners, annotations=annotations) + more, mesh=True)
        ready(lab, GATEWAY)
        yield lab


def ask(
    lab: LabUnderTest, host: str, *words: str, path: str = "", port: int = 80, scheme: str = "http", pod: str = ""
) -> tuple[int, dict[str, Any]]:
    """Status and, of a good answer, what the application heard, of a request from outside the mesh. 0: no answer."""
    where = ["--resolve", f"{host}:{port}:{lab.ip(POD)}"]
    argv = ["curl", "-s", "-m", "20", "-w", "\n%{http_code}", *where, *words, f"{scheme}://{host}:{port}/{path}"]
    done = lab.exec(pod or "outside/client", *argv)
    body, _, code = done.stdout.rpartition("\n")
    return int(code or 0), json.loads(body) if code == "200" else {}


def statuses(conditions: list[dict[str, Any]]) -> dict[str, tuple[str, str]]:
    return {one["type"]: (one["status"], one["reason"]) for one in conditions}
