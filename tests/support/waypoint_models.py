"""Random services, servers outside and workloads behind a waypoint, with everything that people may write of them:
whatever our parsers take.

Values are what people write and what they had better not: signs of every kind, at the longest that is allowed.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Any, Final

from ambient.control.derive import derive
from ambient.control.derive_world import DeriveSettings
from ambient.kube.networking import Gateway
from ambient.kube.objects import Record, parse_object
from ambient.kube.routing import PathMatch, RouteMatch, RouteRule
from ambient.waypoint.deploy import XFCC
from ambient.waypoint.front import Protocol, Route, View
from ambient.waypoint.ingress import gateway_resources
from ambient.waypoint.resources import resources
from ambient.waypoint.tunnel import inner
from bench.fed_envoy import FedEnvoy
from tests.support.builders import records
from tests.support.envoy_fed import Told
from tests.support.random_egress import Egress, evidence
from tests.support.random_gateways import Fronted
from tests.support.random_policies import Policies
from tests.support.random_routes import Routes
from tests.support.random_scene import NODES, Scene, node_objects
from tests.support.random_traffic import Traffic
from tests.support.random_words import Words, without_none
from tests.support.waypoint_records import NAMESPACE, gateway, pod, service

_PROTOCOLS: Final = ("http", "http2", "grpc", "tcp", "tls", "", "kubernetes.io/h2c", "kubernetes.io/ws")
_ENTRIES: Final = 0.25
"""Of the models so many are servers outside, as a share."""
_Draw = Callable[[int], dict[str, Any]]


class Model:
    """The objects of one service, or of one server outside."""

    def __init__(self, words: Words, number: int) -> None:
        self._words = words
        self._number = number
        self._outside = words.often(_ENTRIES)
        self._name = f"{'e' if self._outside else 's'}{number}"
        host = f"{self._name}.example.com" if self._outside else f"{self._name}.shop.svc.cluster.local"
        self._ports: list[int] = words.rng.sample((80, 81, 443, 8080, 9000, 65535), words.rng.randint(1, 3))
        self._target = {"group": "", "kind": "Service", "name": self._name}
        if self._outside:
            self._target = {"group": "networking.istio.io", "kind": "ServiceEntry", "name": self._name}
        self._traffic = Traffic(words, self._name, host, self._ports)
        self._egress = Egress(words, self._name, number)

    def objects(self) -> Iterator[Record]:
        words = self._words
        policies = Policies(words, self._name, self._target)
        draws: tuple[tuple[_Draw, tuple[int, ...]], ...] = (
            (policies.policy, (0, 1, 2, 3)),
            (policies.tokens, (0, 0, 1, 2)),
            (lambda _: self._traffic.destination_rule(self._egress.tls if self._tls() else None), (0, 0, 1)),
            (lambda _: self._traffic.virtual_service(), (0, 0, 1)),
            (lambda _: self._egress.backend_tls(self._target), (0, 0, 0, 1)),
            (lambda _: self._traffic.telemetry(self._target), (0, 0, 1)),
        )
        yield from self._inside() if not self._outside else self._beyond()
        for draw, counts in draws:
            for number in range(words.one(*counts)):
                yield from words.read(lambda draw=draw, number=number: draw(number))  # type: ignore[misc]

    def _tls(self) -> bool:
        return self._words.often(0.8 if self._outside else 0.2)

    def _beyond(self) -> Iterator[Record]:
        address = str(ip_address("10.97.0.0") + 1 + self._number)
        yield from self._words.read(lambda: self._egress.entry(self._ports, address))

    def _inside(self) -> Iterator[Record]:
        words = self._words
        listed = [
            {"name": f"p{one}", "port": one, "appProtocol": words.one(*_PROTOCOLS) or None} for one in self._ports
        ]
        made = service(self._name, *listed, ip=str(ip_address("10.96.0.0") + 1 + self._number))
        made["spec"]["trafficDistribution"] = words.one(None, None, "PreferClose", "PreferSameZone", "PreferSameNode")
        yield parse_object(without_none(made), "model")
        routes = Routes(words, self._name, self._ports, self._traffic)
        draws: tuple[tuple[_Draw, tuple[int, ...]], ...] = (
            (self._pod, (0, 1, 1, 3)),
            (lambda number: routes.route(number, self._parent()), (0, 0, 1, 2)),
            (lambda number: self._traffic.grpc_route(number, self._parent()), (0, 0, 0, 1)),
            (lambda number: self._traffic.stream_route(number, self._parent()), (0, 0, 0, 1)),
        )
        for draw, counts in draws:
            for number in range(words.one(*counts)):
                yield from words.read(lambda draw=draw, number=number: draw(number))  # type: ignore[misc]

    def _parent(self) -> dict[str, Any]:
        return {"group": "", "kind": "Service", "name": self._name, "port": self._words.one(None, *self._ports)}

    def _pod(self, number: int) -> dict[str, Any]:
        words = self._words
        ip = str(ip_address("10.1.0.0") + 1 + self._number * 4 + number)
        made = pod(f"{self._name}-{number}", ip, app=self._name, ready=words.often(0.8), mesh=words.often(0.8))
        made["metadata"]["labels"]["version"] = words.one("v1", "v2")
        if words.often(0.5):
            # Called by its own address, it is behind the waypoint, too, where that is for workloads.
            made["metadata"]["labels"]["istio.io/use-waypoint"] = "waypoint"
        made["spec"]["nodeName"] = words.one(*NODES)
        made["spec"]["serviceAccountName"] = words.one("web", "api", f"own-{self._number}")
        return made


@dataclass(frozen=True)
class Models:
    """So many services as one waypoint's view, the objects of each kind behind it, and how many our parsers did not
    take."""

    view: View
    kinds: Counter[str]
    unfit: int


def models(seed: int, count: int) -> Models:
    words = Words(random.Random(seed))
    made = [Model(words, number) for number in range(count)]
    door, scene = gateway(), Scene(words)
    if words.often(0.5):
        door["metadata"]["annotations"] = {XFCC: "true"}
    if words.often(0.5):
        door["metadata"]["labels"] = {"istio.io/waypoint-for": "all"}
    rules = (one for model in made for one in model.objects())
    found = records(NAMESPACE, *node_objects(), *evidence(), door, *scene.objects(), *rules, *_for_all(words))
    derived = derive(found, DeriveSettings())
    fronts = scene.fronts(found, derived)
    record = found.find(Gateway, "shop", "waypoint")
    assert record is not None
    view = fronts.view(derived.waypoints["shop/waypoint"], record)
    kinds = Counter(one.kind for one in found.by_key.values())
    return Models(replace(view, place=scene.place()), kinds, words.refused)


def _for_all(words: Words) -> Iterable[Record]:
    """Policies and tokens of everything behind the waypoint."""
    target = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "waypoint"}
    policies, traffic = Policies(words, "all", target), Traffic(words, "all", "*.shop.svc.cluster.local", [80])
    for draw in (policies.policy, policies.tokens, lambda _: traffic.telemetry(target)):
        if words.often(0.3):
            yield from words.read(lambda draw=draw: draw(0))  # type: ignore[misc]


def spoilt(good: Models) -> tuple[Models, str]:
    """With one expression that is none, and the name of the table that it is in."""
    fronts = list(good.view.fronts)
    at = next(number for number, front in enumerate(fronts) if front.ports[0].protocol is Protocol.HTTP)
    port = fronts[at].ports[0].number
    match = RouteMatch(PathMatch("RegularExpression", "("))
    fronts[at] = replace(fronts[at], routes=(Route("odd", port, match, RouteRule()),))
    return replace(good, view=replace(good.view, fronts=tuple(fronts))), inner(fronts[at], port)


@dataclass(frozen=True)
class Taken:
    resources: int
    refused: dict[str, str]


async def take(told: Told, envoy: FedEnvoy, found: Models | Fronted) -> Taken:
    """Give an Envoy the configuration of these models in the place of what it has."""
    made = list(gateway_resources(found.view) if isinstance(found, Fronted) else resources(found.view))
    told.tell(made)
    return Taken(len(made), await envoy.settled())
