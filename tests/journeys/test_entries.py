"""What is outside of pods, told of by ServiceEntry, WorkloadEntry and slices by hand: found by name, and reached."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.journey import BOTH, HTTP, LEGACY, WEB, Journey, journey
from tests.support.lab import object_yaml, until

ISTIO = "networking.istio.io/v1"
PORTS = [{"number": 80, "name": "http", "protocol": "HTTP", "targetPort": HTTP}]


@pytest.fixture(scope="module")
def mesh() -> Iterator[Journey]:
    with journey("entries") as found:
        yield found


def entry(name: str, **spec: Any) -> str:
    return object_yaml(ISTIO, "ServiceEntry", name, "shop", spec={"ports": PORTS, "resolution": "STATIC", **spec})


def answers(mesh: Journey, host: str, port: int = 80) -> None:
    """The server outside of the mesh is who answers there, before long: an address may have to be given first."""
    outside = mesh.identify(WEB, mesh.url(LEGACY, 4))["started"]
    until(f"{host} answers", lambda: mesh.identify(WEB, f"http://{host}:{port}/id").get("started") == outside)


def addresses(mesh: Journey, host: str) -> set[str]:
    found = mesh.stage.exec(WEB, "getent", "ahosts", host).out
    return {line.split()[0] for line in found.splitlines()}


def test_a_host_outside_has_addresses_of_its_own_that_lead_to_its_endpoints(mesh: Journey) -> None:
    endpoints = [{"address": mesh.host(LEGACY, 4)}]
    mesh.lab.apply(entry("db", hosts=["db.outside.example"], endpoints=endpoints))
    answers(mesh, "db.outside.example")
    given = addresses(mesh, "db.outside.example")
    assert given == {"240.240.0.1", "2001:2::1"}
    mesh.lab.apply(entry("aaa", hosts=["aaa.outside.example"], endpoints=endpoints))
    answers(mesh, "aaa.outside.example")
    assert addresses(mesh, "db.outside.example") == given


def test_a_host_with_an_address_is_reached_there(mesh: Journey) -> None:
    endpoints = [{"address": mesh.host(LEGACY, 4)}]
    mesh.lab.apply(entry("fixed", hosts=["fixed.outside.example"], addresses=["240.250.7.7"], endpoints=endpoints))
    answers(mesh, "240.250.7.7")
    assert addresses(mesh, "fixed.outside.example") == {"240.250.7.7"}


def test_a_machine_is_behind_the_service_that_selects_it(mesh: Journey) -> None:
    ports = [{"name": "http", "port": 80, "targetPort": "web"}]
    service = object_yaml("v1", "Service", "vms", "shop", spec={**BOTH, "selector": {"app": "vm"}, "ports": ports})
    spec = {"address": mesh.host(LEGACY, 4), "labels": {"app": "vm"}, "ports": {"web": HTTP}}
    mesh.lab.apply(service + object_yaml(ISTIO, "WorkloadEntry", "vm1", "shop", spec=spec))
    answers(mesh, "vms.shop")
    mesh.lab.delete(object_yaml(ISTIO, "WorkloadEntry", "vm1", "shop", spec=spec))
    until("nobody is behind it", lambda: not mesh.identify(WEB, "http://vms.shop:80/id"))


def test_a_service_without_selector_has_the_addresses_that_somebody_wrote_down(mesh: Journey) -> None:
    ports = [{"name": "http", "port": 80, "targetPort": HTTP}]
    service = object_yaml("v1", "Service", "hand", "shop", spec={**BOTH, "ports": ports})
    written = object_yaml(
        "discovery.k8s.io/v1",
        "EndpointSlice",
        "hand-1",
        "shop",
        addressType="IPv4",
        endpoints=[{"addresses": [mesh.host(LEGACY, 4)]}],
        ports=[{"name": "http", "port": HTTP}],
        labels={"kubernetes.io/service-name": "hand"},
    )
    mesh.lab.apply(service + written)
    answers(mesh, "hand.shop")
