"""Where a Gateway is reached, row by row."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ambient.control.gateway_address import addresses, unmet
from ambient.kube.networking import Gateway, TypedAddress
from ambient.kube.objects import Service
from ambient.model.address import parse_ip

FRONT = Gateway(name="front", namespace="shop", class_name="ambient")
OWN = (parse_ip("10.96.0.7"),)
IP = TypedAddress("IPAddress", "192.0.2.1")
MINE = TypedAddress("Hostname", "mine.shop.svc.cluster.local")


def given(gateway: Gateway, **service: object) -> list[tuple[str, str]]:
    """With one Service of that name in the Gateway's namespace."""
    record = Service(**{"name": "front-ambient", "namespace": "shop", "cluster_ips": OWN, **service})  # type: ignore[arg-type]

    def find(namespace: str, name: str) -> Service | None:
        return record if (namespace, name) == (record.namespace, record.name) else None

    return [(one.type, one.value) for one in addresses(gateway, find, "cluster.local")]


@pytest.mark.parametrize(
    ("balanced", "wanted"),
    [
        ((), [("IPAddress", "10.96.0.7")]),
        (("192.0.2.1",), [("IPAddress", "192.0.2.1")]),
        (("lb.example.com",), [("Hostname", "lb.example.com")]),
        (("192.0.2.1", "2001:db8::1"), [("IPAddress", "192.0.2.1"), ("IPAddress", "2001:db8::1")]),
    ],
)
def test_an_ingress_has_what_a_load_balancer_gave_else_its_services_own(
    balanced: tuple[str, ...], wanted: list[tuple[str, str]]
) -> None:
    assert given(FRONT, balanced=balanced) == wanted


def test_a_waypoint_has_its_name() -> None:
    waypoint = replace(FRONT, name="w", class_name="istio-waypoint")
    assert given(waypoint, name="w", balanced=("192.0.2.1",)) == [("Hostname", "w.shop.svc.cluster.local")]


def test_without_a_service_there_is_none() -> None:
    assert given(FRONT, name="other") == []
    assert given(FRONT, cluster_ips=()) == []


def test_a_service_that_its_owner_names_stands_for_it_when_it_is_there() -> None:
    gateway = replace(FRONT, wanted=(MINE,))
    assert given(gateway, name="mine") == [("Hostname", MINE.value)]
    assert given(gateway) == []
    assert given(replace(FRONT, wanted=(TypedAddress("Hostname", "mine.other.svc.cluster.local"),)), name="mine") == []


def test_an_address_that_was_asked_for_and_not_given_is_told() -> None:
    asked = replace(FRONT, wanted=(IP,))
    said = unmet(replace(asked, assigned=(TypedAddress("IPAddress", "10.96.0.7"),)))
    assert said is not None
    assert (said.type, said.status, said.reason) == ("Programmed", "False", "AddressNotUsable")
    assert IP.value in said.message
    assert unmet(replace(asked, assigned=(IP,))) is None
    assert unmet(FRONT) is None
