"""What stands around random models: who authorizes, who counts limits, who is told, nodes and their localities."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from ambient.control.derive import Derived
from ambient.control.derive_front import Fronts
from ambient.control.derive_limiter import Counting
from ambient.kube.mesh_config import read_mesh_config
from ambient.kube.objects import Record, Records, parse_object
from ambient.model.workload import Locality
from ambient.waypoint.front import Place
from tests.support.builders import raw
from tests.support.random_egress import system_roots
from tests.support.random_words import Words
from tests.support.waypoint_records import pod, service

COUNTER: Final = "counter.shop.svc.cluster.local"
NODES: Final = ("n1", "n2", "n3")
PROVIDERS: Final = """
extensionProviders:
- name: by-grpc
  envoyExtAuthzGrpc:
    service: authz.shop.svc.cluster.local
    port: 9000
    timeout: 0.5s
    includeRequestBodyInCheck: {maxRequestBytes: 1000, allowPartialMessage: true, packAsBytes: true}
- name: by-http
  envoyExtAuthzHttp:
    service: shop/authz.shop.svc.cluster.local
    port: 8000
    pathPrefix: /check
    statusOnError: "503"
    includeRequestHeadersInCheck: [x-a, "x-b*"]
    includeAdditionalHeadersInCheck: {x-from: waypoint}
    headersToUpstreamOnAllow: [x-user, x-team]
    headersToDownstreamOnDeny: [x-why, "*"]
    headersToDownstreamOnAllow: [x-ok]
- name: spans
  opentelemetry: {service: collector.obs.svc.cluster.local, port: 4317}
- name: zip
  zipkin: {service: zipkin.obs.svc.cluster.local, port: 9411}
- name: logs
  envoyOtelAls: {service: collector.obs.svc.cluster.local, port: 4317}
- name: file
  envoyFileAccessLog: {path: /dev/stdout}
"""


class Scene:
    """Of one waypoint, or one gateway."""

    def __init__(self, words: Words) -> None:
        self._words = words
        self._aliases = [f"td{number}.example" for number in range(words.one(0, 0, 3))]
        self._counting = Counting(COUNTER, 8081) if words.often(0.7) else None

    def objects(self) -> Iterable[Record]:
        authz = service("authz", {"name": "grpc", "port": 9000}, {"name": "http", "port": 8000}, ip="10.96.255.1")
        counter = service("counter", {"name": "grpc", "port": 8081}, ip="10.96.255.2")
        for one in (authz, counter, pod("counter-1", "10.1.255.1", app="counter")):
            yield parse_object(one, "scene")

    def fronts(self, found: Records, derived: Derived) -> Fronts:
        """With these objects."""
        trusted = ("cluster.local", *self._aliases)
        made = Fronts(trusted, "istio-system", counting=self._counting, roots=system_roots())
        made.configure(read_mesh_config(PROVIDERS, "test"))
        made.update(found, derived)
        return made

    def place(self) -> Place | None:
        """Where the proxy is, None: nobody knows."""
        words = self._words
        return words.one(None, Place(words.one(*NODES, "n9"), Locality("r1", words.one("", "z1"), words.one("", "s1"))))


def node_objects() -> Iterable[dict[str, Any]]:
    for number, name in enumerate(NODES):
        labels = {"topology.kubernetes.io/region": f"r{number % 2 + 1}", "topology.kubernetes.io/zone": "z1"}
        yield raw("Node", name, {}, labels=labels)
