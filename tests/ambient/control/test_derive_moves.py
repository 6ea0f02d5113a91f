"""Endpoints that come and go cost little, and nobody can tell from what comes of it that less was looked at."""

from __future__ import annotations

import random
from typing import Any

import pytest

from ambient.control.derive import Derivation
from ambient.control.derive_front import Fronts
from ambient.control.derive_moves import moved
from ambient.control.derive_world import DeriveSettings
from ambient.kube.networking import Gateway
from ambient.kube.objects import Record, Records, parse_object
from ambient.waypoint.front import View
from ambient.waypoint.resources import Made, resources
from tests.support.builders import raw
from tests.support.gateway_records import HTTP, https, ingress
from tests.support.gateway_records import route as on_a_gateway
from tests.support.waypoint_records import NAMESPACE, TARGET, gateway, pod, policy, service

PORT = {"name": "http", "port": 80, "targetPort": 8080}


def route(name: str, to: str) -> dict[str, Any]:
    ref = {"group": "", "kind": "Service", "name": "web"}
    spec = {"parentRefs": [ref], "rules": [{"backendRefs": [{"name": to, "port": 80}]}]}
    return {**raw("HTTPRoute", name, spec, namespace="shop"), "apiVersion": "gateway.networking.k8s.io/v1"}


def istio(kind: str, host: str, subset: str) -> dict[str, Any]:
    spec: dict[str, Any] = {"host": host, "subsets": [{"name": subset, "labels": {"track": subset}}]}
    if kind == "VirtualService":
        destinations = [{"destination": {"host": "web", "subset": subset}, "weight": 1}]
        spec = {"hosts": [host], "http": [{"route": destinations}]}
    return {**raw(kind, host, spec, namespace="shop"), "apiVersion": "networking.istio.io/v1"}


class Mesh:
    """Snapshots as a watch gives them, looked at by one that remembers and by ones that begin anew."""

    def __init__(self) -> None:
        self.derivation = Derivation(DeriveSettings())
        self.fronts = Fronts(("cluster.local",), "istio-system")
        self.made = Made()
        self.by_key: dict[str, Record] = {}
        self.revision = 0
        self.records = Records()

    def change(self, *put: dict[str, Any], gone: tuple[str, ...] = (), everything: bool = False) -> View:
        read = {one.key: one for one in (parse_object(one, "test") for one in put)}
        self.by_key = {key: one for key, one in {**self.by_key, **read}.items() if key not in gone}
        self.revision += 1
        changed = None if everything else frozenset((*read, *gone))
        self.records = Records(self.revision, self.by_key, changed=changed)
        derived = self.derivation.update(self.records)
        self.fronts.update(self.records, derived)
        record = self.records.find(Gateway, "shop", "waypoint")
        assert record is not None
        view = self.fronts.view(derived.waypoints["shop/waypoint"], record)
        anew = Fronts(("cluster.local",), "istio-system")
        whole = Records(self.revision, self.by_key)
        told = Derivation(DeriveSettings()).update(whole)
        anew.update(whole, told)
        assert view == anew.view(told.waypoints["shop/waypoint"], record)
        assert self.fronts.route_conditions() == anew.route_conditions()
        assert list(resources(view, made=self.made)) == list(resources(view))
        door = self.records.find(Gateway, "shop", "front")
        if door is not None:
            assert self.fronts.told(door) == anew.told(door)
        return view


def services() -> list[dict[str, Any]]:
    return [service("web", PORT), service("db", PORT, ip="10.96.0.2"), service("free", PORT, ip="10.96.0.3")]


@pytest.mark.parametrize("seed", range(6))
def test_whatever_happens_in_whatever_order_nobody_can_tell(seed: int) -> None:
    draw, mesh = random.Random(seed), Mesh()
    on_gateway = on_a_gateway("g", {"backendRefs": [{"name": "web", "port": 80}, {"name": "free", "port": 80}]})
    mesh.change(NAMESPACE, gateway(), ingress(), on_gateway, *services(), everything=True)
    there: set[int] = set()
    for _ in range(25):
        number = draw.randrange(6)
        match draw.randrange(11):
            case 0:
                mesh.change(route(f"r-{number % 2}", draw.choice(("db", "free", "nobody"))))
            case 1:
                mesh.change(policy(f"p-{number % 2}", draw.choice(("ALLOW", "DENY")), TARGET, rules=[{}]))
            case 2:
                mesh.change(gone=tuple(key for key in mesh.by_key if key.startswith("HTTPRoute/"))[:1])
            case 3 if there:
                gone = there.pop()
                mesh.change(gone=tuple(key for key in mesh.by_key if key.endswith(f"/pod-{gone}")))
            case 4:
                mesh.change(istio("VirtualService", draw.choice(("web", "db")), draw.choice(("v1", "v2", "v3"))))
            case 5:
                mesh.change(istio("DestinationRule", draw.choice(("web", "db")), draw.choice(("v1", "v2"))))
            case 6:
                mesh.change(gone=tuple(key for key in mesh.by_key if key.startswith(("Virtual", "Dest")))[:1])
            case _:
                there.add(number)
                app = draw.choice(("web", "db"))
                one = pod(f"pod-{number}", f"10.1.0.{number}", ready=draw.random() < 0.8, app=app)
                one["metadata"]["labels"]["track"] = draw.choice(("v1", "v2"))
                mesh.change(one)


def test_a_pod_of_which_nothing_changes_but_a_label_is_in_another_subset() -> None:
    def subset(view: View) -> list[str]:
        (web,) = [one for one in view.fronts if one.hostname.startswith("web.")]
        return [str(one.address) for one in web.ports[0].subsets[0].backends]

    mesh, one = Mesh(), pod("a", "10.1.0.1")
    rules = (istio("DestinationRule", "web", "v1"), istio("VirtualService", "web", "v1"))
    assert subset(mesh.change(NAMESPACE, gateway(), *services(), *rules, one, everything=True)) == []
    labels = {**one["metadata"]["labels"], "track": "v1"}
    assert subset(mesh.change({**one, "metadata": {**one["metadata"], "labels": labels}})) == ["10.1.0.1"]
    assert subset(mesh.change(one)) == []


def test_one_endpoint_leaves_all_other_services_the_very_same() -> None:
    mesh = Mesh()
    mesh.change(NAMESPACE, gateway(), *services(), pod("a", "10.1.0.1"), everything=True)
    before = mesh.change(pod("b", "10.1.0.2", app="db"))
    after = mesh.change(pod("c", "10.1.0.3"))
    same = [old.hostname for old, new in zip(before.fronts, after.fronts, strict=True) if old is new]
    assert same == ["db.shop.svc.cluster.local", "free.shop.svc.cluster.local"]


def test_a_gateway_is_derived_again_only_when_what_it_is_made_of_changes() -> None:
    mesh = Mesh()
    objects = (
        gateway(),
        ingress(),
        on_a_gateway("g"),
        *services(),
        pod("a", "10.1.0.1"),
        pod("b", "10.1.0.2", app="db"),
    )
    mesh.change(NAMESPACE, *objects, everything=True)
    door = mesh.records.find(Gateway, "shop", "front")
    assert door is not None
    first = mesh.fronts.told(door)
    mesh.change(pod("b", "10.1.0.2", app="db", ready=False))
    assert mesh.fronts.told(door) is first
    mesh.change(service("web", PORT, **{"istio.io/use-waypoint": "none"}))
    second = mesh.fronts.told(door)
    mesh.change(pod("a", "10.1.0.1", ready=False))
    third = mesh.fronts.told(door)
    assert [len(one.view.pools[0].ports[0].backends) for one in (first, second, third)] == [1, 1, 0]
    assert second != first
    # All of its sites, however many, are not looked at again for an endpoint.
    assert third.view.doors[0].sites is second.view.doors[0].sites


def test_while_a_certificate_is_missing_its_sites_are_not_looked_at_again() -> None:
    mesh = Mesh()
    mesh.change(NAMESPACE, gateway(), ingress(HTTP, https()), on_a_gateway("g"), *services(), everything=True)
    door = mesh.records.find(Gateway, "shop", "front")
    assert door is not None
    first, second = mesh.fronts.told(door), mesh.fronts.told(door)
    assert not first.resolved
    assert second is not first
    assert second.view.doors[0].sites is first.view.doors[0].sites


def test_what_is_on_a_gateway_is_looked_at_in_steps() -> None:
    def steps(number: int) -> int:
        mesh, routes = Mesh(), (on_a_gateway(f"g{one}", hosts=(f"h{one}.example.com",)) for one in range(number))
        mesh.change(NAMESPACE, gateway(), *services(), *routes, everything=True)
        door = parse_object(ingress(), "test")
        assert isinstance(door, Gateway)
        return len(list(mesh.fronts.telling(door)))

    assert steps(200) - steps(100) >= 5


def test_anything_but_an_endpoint_is_looked_at_whole() -> None:
    mesh = Mesh()
    mesh.change(NAMESPACE, gateway(), *services(), pod("a", "10.1.0.1"), everything=True)
    known = {uid: () for uid in mesh.derivation.update(Records(1, mesh.by_key)).workloads}
    before = mesh.records
    for one, wanted in ((pod("b", "10.1.0.2"), True), (service("web", PORT, ip="10.96.0.9"), False)):
        record = parse_object(one, "test")
        mesh.by_key = {**mesh.by_key, record.key: record}
        records = Records(9, mesh.by_key, changed=frozenset((record.key,)))
        assert moved(records, before, mesh.derivation.update(records), known) is wanted
