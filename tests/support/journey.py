"""The mesh that the journeys use: two nodes, clients, servers near and far, and what is outside.

    n1: shop/web, shop/batch (clients), shop/near (server), plain/outside (client)
    n2: shop/far, plain/legacy (servers)

Servers run the demo's program: HTTP on 8080, lines on 7000 (speaks first), bytes on 7001 (until the end, then twice).
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ambient.cli.demo.app import SERVER
from ambient.cli.demo.stage import PYTHON, Stage
from tests.support.lab import SLEEP, LabUnderTest, lab_under_test, namespace_yaml, object_yaml, pod_yaml

WEB, BATCH, OUTSIDE = "shop/web", "shop/batch", "plain/outside"
NEAR, FAR, LEGACY = "shop/near", "shop/far", "plain/legacy"
HTTP, LINES, BYTES = 8080, 7000, 7001
MODE = "istio.io/dataplane-mode"
JOIN, LEAVE = f"{MODE}=ambient", f"{MODE}-"
CUT_S = 1.0
"""What still lives this long after a change was acknowledged was not cut by it."""


def server(pod: str, node: str, **fields: Any) -> str:
    name = pod.rpartition("/")[2]
    ready = {"httpGet": {"path": "/healthz", "port": HTTP}, "periodSeconds": 1, "timeoutSeconds": 20}
    return pod_yaml(pod, [PYTHON, "-u", "-c", SERVER], node=node, labels={"app": name}, readiness=ready, **fields)


def account(name: str) -> str:
    return object_yaml("v1", "ServiceAccount", name, "shop")


BOTH = {"ipFamilyPolicy": "PreferDualStack"}


def service(name: str, namespace: str = "shop", **spec: Any) -> str:
    ports = [{"name": f"p{port}", "port": port} for port in (HTTP, LINES, BYTES)]
    return object_yaml(
        "v1", "Service", name, namespace, spec={**BOTH, "selector": {"app": name}, "ports": ports, **spec}
    )


def policy(name: str, action: str, rules: list[Any], app: str = "far", namespace: str = "shop", **metadata: Any) -> str:
    """An AuthorizationPolicy over the pods of one app ("" = the namespace)."""
    spec: dict[str, Any] = {"action": action, "rules": rules}
    if app:
        spec["selector"] = {"matchLabels": {"app": app}}
    return object_yaml("security.istio.io/v1", "AuthorizationPolicy", name, namespace, spec=spec, **metadata)


def strict(namespace: str = "shop") -> str:
    return object_yaml(
        "security.istio.io/v1", "PeerAuthentication", "default", namespace, spec={"mtls": {"mode": "STRICT"}}
    )


OBJECTS = (
    namespace_yaml("shop")
    + namespace_yaml("plain")
    + "".join(account(name) for name in ("web", "batch", "near", "far"))
    + pod_yaml(WEB, SLEEP, node="n1", account="web")
    + pod_yaml(BATCH, SLEEP, node="n1", account="batch")
    + pod_yaml(OUTSIDE, SLEEP, node="n1")
    + server(NEAR, "n1", account="near")
    + server(FAR, "n2", account="far")
    + server(LEGACY, "n2")
    + service("near")
    + service("far")
    + service("headless", clusterIP="None", selector={"app": "far"})
    + service("legacy", "plain")
)


class Journey:
    """A lab with OBJECTS up, and what the tests say about it."""

    def __init__(self, lab: LabUnderTest) -> None:
        self.lab = lab
        self.stage = Stage(lab.name)

    def host(self, pod: str, version: int) -> str:
        return self.lab.ip(pod, version)

    def url(self, pod: str, version: int, path: str = "/id") -> str:
        host = self.host(pod, version)
        return f"http://[{host}]:{HTTP}{path}" if version == 6 else f"http://{host}:{HTTP}{path}"

    def identify(self, client: str, url: str) -> dict[str, Any]:
        """What the server at `url` says of itself and its peer; {} when it cannot be reached."""
        answer: dict[str, Any] = json.loads(self.stage.ask(client, url).out or "{}")
        return answer

    def reaches(self, client: str, pod: str, version: int = 4) -> bool:
        return bool(self.identify(client, self.url(pod, version)))

    def enrolled(self) -> set[str]:
        return {f"{p['namespace']}/{p['name']}" for p in self.lab.status()["pods"] if p["mesh"] == "enrolled"}


@contextmanager
def journey(hint: str, *, join: bool = True, env: Mapping[str, str] | None = None) -> Iterator[Journey]:
    """The mesh of the journeys, up and ready; with `join` namespace shop is in it. `env`: [PART:]KEY -> VALUE.
    AMBIENT_TEST_CAPTURE in our own environment has the same journeys go another way (as AMBIENT_CAPTURE)."""
    way = os.environ.get("AMBIENT_TEST_CAPTURE")
    with lab_under_test(hint) as lab:
        lab.up(OBJECTS, mesh=True, env={**({"agent:AMBIENT_CAPTURE": way} if way else {}), **(env or {})})
        lab.wait_ready()
        if join:
            lab.label("shop", JOIN)
        yield Journey(lab)
