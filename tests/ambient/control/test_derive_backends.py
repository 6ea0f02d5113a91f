"""Where backends lead: into another namespace with a ReferenceGrant alone, for every kind of route alike."""

from __future__ import annotations

from typing import Any

import pytest

from ambient.waypoint.front import Destination, Stream
from tests.ambient.control.test_derive_routes import HTTP, look
from tests.support.builders import raw
from tests.support.waypoint_records import scene, service

GROUP = "gateway.networking.k8s.io"
RAW = {"name": "tcp-raw", "port": 9000}
DATA = {**service("far", HTTP, RAW, ip="10.96.0.9")}
DATA = {**DATA, "metadata": {**DATA["metadata"], "namespace": "data", "labels": {}}}
NEAR = service("near", HTTP, RAW, ip="10.96.0.8")
FAR = "far.data.svc.cluster.local"


def route(kind: str, version: str, port: int, *, name: str = "r", created: str = "", **spec: Any) -> dict[str, Any]:
    parent = {"group": "", "kind": "Service", "name": "web", "port": port}
    refs = [{"name": "far", "namespace": "data", "port": port}]
    spec = {"parentRefs": [parent], "rules": [{"backendRefs": refs}], **spec}
    made = {**raw(kind, name, spec, namespace="shop"), "apiVersion": f"{GROUP}/{version}"}
    if created:
        made["metadata"]["creationTimestamp"] = created
    return made


def grant(kind: str, *, home: str = "data", source: str = "shop", to: str = "") -> dict[str, Any]:
    target = {"group": "", "kind": "Service", **({"name": to} if to else {})}
    spec = {"from": [{"group": GROUP, "kind": kind, "namespace": source}], "to": [target]}
    return {**raw("ReferenceGrant", "g", spec, namespace=home), "apiVersion": f"{GROUP}/v1beta1"}


ROUTES = [
    route("HTTPRoute", "v1", 80),
    route("GRPCRoute", "v1", 80),
    route("TCPRoute", "v1alpha2", 9000),
    route("TLSRoute", "v1", 9000, hostnames=["a.b"]),
]


def there(*objects: dict[str, Any]) -> tuple[list[Destination], tuple[str, str]]:
    view, said = look(scene(DATA, *objects))
    (front,) = [one for one in view.fronts if one.hostname.startswith("web.")]
    found = [one for each in (*front.routes, *front.streams) for one in each.destinations]
    ((_, conditions),) = said.items()
    return found, conditions["ResolvedRefs"]


@pytest.mark.parametrize("one", ROUTES, ids=lambda one: str(one["kind"]))
def test_another_namespace_is_led_to_when_it_has_granted_that(one: dict[str, Any]) -> None:
    kind, port = one["kind"], one["spec"]["parentRefs"][0]["port"]
    for good in (grant(kind), grant(kind, to="far")):
        assert there(one, good) == ([Destination(FAR, port, namespace="data")], ("True", "ResolvedRefs"))
    others = ("HTTPRoute" if kind != "HTTPRoute" else "GRPCRoute", kind)
    bad = (
        grant(others[0]),
        grant(kind, home="shop"),
        grant(kind, source="elsewhere"),
        grant(kind, to="near"),
        {**grant(kind), "metadata": {"name": "g", "namespace": "other"}},
    )
    for wrong in bad:
        assert there(one, wrong) == ([Destination("", 0)], ("False", "RefNotPermitted"))


def test_a_service_that_another_namespace_grants_is_there_with_its_endpoints() -> None:
    view, _ = look(scene(DATA, ROUTES[0], grant("HTTPRoute")))
    assert [(one.namespace, one.hostname, [port.number for port in one.ports]) for one in view.beyond] == [
        ("data", FAR, [80])
    ]


def test_of_several_routes_for_the_same_connections_the_oldest_has_them() -> None:
    refs = {"rules": [{"backendRefs": [{"name": "near", "port": 9000}]}]}
    old = route("TLSRoute", "v1", 9000, name="z", created="2025-01-01T00:00:00Z", hostnames=["a.b"], **refs)
    new = route("TLSRoute", "v1", 9000, name="a", created="2026-01-01T00:00:00Z", hostnames=["a.b", "c.d"])
    rest = route("TCPRoute", "v1alpha2", 9000, name="t", **refs)
    view, _ = look(scene(DATA, NEAR, old, new, rest, grant("TLSRoute")))
    (front,) = [one for one in view.fronts if one.hostname.startswith("web.")]
    near, far = Destination("near.shop.svc.cluster.local", 9000), Destination(FAR, 9000, namespace="data")
    assert front.streams == (Stream(9000, (near,), ("a.b",)), Stream(9000, (far,), ("c.d",)), Stream(9000, (near,)))
