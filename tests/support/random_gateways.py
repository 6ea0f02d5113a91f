"""Ingress Gateways with everything that people may write of them, drawn at random."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from ambient.control.derive import derive
from ambient.control.derive_world import DeriveSettings
from ambient.kube.networking import Gateway
from ambient.kube.objects import Record
from ambient.waypoint.door import GatewayView
from tests.support.builders import raw, records
from tests.support.random_egress import AUTHORITIES, CREDENTIALS, Egress, evidence
from tests.support.random_policies import Policies
from tests.support.random_routes import Routes
from tests.support.random_scene import Scene, node_objects
from tests.support.random_traffic import API, Traffic
from tests.support.random_words import HOSTS, Words
from tests.support.waypoint_records import NAMESPACE, pod, service
from tests.support.waypoint_records import gateway as waypoint

_PORTS: Final = (80, 443, 8080, 8443, 81, 444)
_SERVED: Final = (80, 9000)
_GROUP: Final = "gateway.networking.k8s.io"


class Front:
    """The objects of one Gateway."""

    def __init__(self, words: Words, name: str) -> None:
        self._words = words
        self._name = name

    def objects(self) -> Iterator[Record]:
        words = self._words
        yield from words.read(self._gateway)
        for name in ("open", "guarded", "headless"):
            traffic = Traffic(words, name, f"{name}.shop.svc.cluster.local", list(_SERVED))
            egress = Egress(words, name, 0)
            if words.often(0.3):
                yield from words.read(lambda one=traffic, tls=egress: one.destination_rule(tls.tls))  # type: ignore[misc]
            if words.often(0.2):
                target = {"group": "", "kind": "Service", "name": name}
                yield from words.read(lambda one=egress, to=target: one.backend_tls(to))  # type: ignore[misc]
            yield from self._routes(name, traffic)
        policies = Policies(words, self._name, {"group": _GROUP, "kind": "Gateway", "name": self._name})
        for number in range(words.one(0, 1, 2)):
            yield from words.read(lambda number=number: policies.policy(number))  # type: ignore[misc]
        for number in range(words.one(0, 0, 1)):
            yield from words.read(lambda number=number: policies.tokens(number))  # type: ignore[misc]

    def _routes(self, name: str, traffic: Traffic) -> Iterator[Record]:
        words = self._words
        routes = Routes(words, name, list(_SERVED), traffic)
        for number in range(words.one(1, 1, 2)):
            yield from words.read(lambda number=number: routes.route(number, self._parent(), HOSTS[:3]))  # type: ignore[misc]
        for number in range(words.one(0, 0, 1)):
            yield from words.read(lambda number=number: traffic.grpc_route(number, self._parent()))  # type: ignore[misc]
        for number in range(words.one(0, 0, 1)):
            yield from words.read(lambda number=number: traffic.stream_route(number, self._parent()))  # type: ignore[misc]

    def _parent(self) -> dict[str, Any]:
        words = self._words
        parent: dict[str, Any] = {"name": self._name}
        return parent | words.one({}, {}, {"sectionName": f"l{words.one(0, 1, 2, 3)}"}, {"port": words.one(*_PORTS)})

    def _gateway(self) -> dict[str, Any]:
        words = self._words
        spec: dict[str, Any] = {
            "gatewayClassName": "istio",
            "listeners": [self._listener(number) for number in range(words.one(1, 2, 4, 12))],
        }
        if words.often(0.3):
            spec["tls"] = {"frontend": {"default": {"validation": self._clients()}}}
        notes: dict[str, Callable[[], str]] = {
            "ambient.mesh/trusted-proxies": lambda: words.one("0", "1", "10", "99", "x"),
            "ambient.mesh/proxy-protocol": lambda: words.one("true", "false"),
        }
        made = raw("Gateway", self._name, spec, namespace="shop", annotations=words.some(notes, 0, 2))
        return {**made, "apiVersion": API}

    def _listener(self, number: int) -> dict[str, Any]:
        words = self._words
        usual = number == 0
        protocol = words.one("HTTP", "HTTPS") if usual else words.one("HTTP", "HTTP", "HTTPS", "HTTPS", "TLS", "TCP")
        made: dict[str, Any] = {
            "name": f"l{number}",
            "protocol": protocol,
            "port": words.one(*(_PORTS[::2] if protocol == "HTTP" else _PORTS[1::2])),
            "hostname": words.one(None, *HOSTS),
        }
        if protocol == "HTTPS":
            refs = words.several(lambda: {"name": words.one("p256", "rsa") if usual else words.one(*CREDENTIALS)}, 1, 2)
            made["tls"] = {"certificateRefs": refs}
            if not usual and words.often(0.3):
                made["tls"]["frontendValidation"] = self._clients()
        elif protocol == "TLS":
            made["tls"] = {"mode": "Passthrough"}
        return made

    def _clients(self) -> dict[str, Any]:
        words = self._words
        refs = words.several(lambda: {"kind": "ConfigMap", "name": words.one("one", "several", *AUTHORITIES)}, 1, 3)
        return {"caCertificateRefs": refs, "mode": words.one("AllowValidOnly", "AllowInsecureFallback")}


def _waypoints_own() -> dict[str, Any]:
    made = service("waypoint", {"name": "mesh", "port": 15008}, ip="10.96.0.9")
    del made["metadata"]["labels"]
    return made


@dataclass(frozen=True)
class Fronted:
    """What a gateway is configured from, the objects of each kind behind it, and how many our parsers did not take."""

    view: GatewayView
    kinds: Counter[str]
    unfit: int


def gateway_model(seed: int) -> Fronted:
    """One Gateway before services: with a waypoint, without one, and without an address."""
    words = Words(random.Random(seed))
    ports = [{"name": f"p{one}", "port": one, "appProtocol": words.one("http", "h2c", "tcp")} for one in _SERVED]
    bare = service("open", *ports, ip="10.96.0.2")
    del bare["metadata"]["labels"]
    headless = service("headless", *ports, ip="None")
    del headless["metadata"]["labels"]
    scene = Scene(words)
    found = records(
        NAMESPACE,
        *node_objects(),
        *evidence(),
        waypoint(),
        bare,
        headless,
        service("guarded", *ports, ip="10.96.0.1"),
        _waypoints_own(),
        *(pod(f"{name}-1", f"10.1.0.{number}", app=name) for number, name in enumerate(("open", "guarded"), 1)),
        pod("waypoint-1", "10.1.0.9", app="waypoint"),
        *Front(words, "front").objects(),
        *scene.objects(),
    )
    fronts = scene.fronts(found, derive(found, DeriveSettings()))
    record = found.find(Gateway, "shop", "front")
    assert record is not None
    return Fronted(fronts.told(record).view, Counter(one.kind for one in found.by_key.values()), words.refused)
