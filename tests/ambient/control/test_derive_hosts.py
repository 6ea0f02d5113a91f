"""Hosts of Istio's objects: which services they mean, and whom an object is there for."""

from __future__ import annotations

import pytest

from ambient.control.derive_hosts import exactness, exported_to
from tests.support.builders import service

WEB = service(namespace="shop")


@pytest.mark.parametrize(
    ("host", "namespace", "means"),
    [
        ("web", "shop", True),
        ("web", "edge", False),
        ("WEB", "shop", True),
        ("web.shop.svc.cluster.local", "edge", True),
        ("*.svc.cluster.local", "istio-system", True),
        ("*", "shop", True),
        ("web.shop", "shop", False),
        ("other", "shop", False),
    ],
)
def test_a_host_means_a_service(host: str, namespace: str, means: bool) -> None:
    assert bool(exactness(host, namespace, WEB)) is means


def test_the_longer_wildcard_is_the_more_exact_and_a_name_more_than_any() -> None:
    hosts = ("*", "*.local", "*.cluster.local", "web.shop.svc.cluster.local")
    found = [exactness(host, "shop", WEB) for host in hosts]
    assert found == sorted(set(found))


@pytest.mark.parametrize(
    ("export_to", "seen"), [((), True), (("*",), True), ((".",), False), (("edge",), True), (("~",), False)]
)
def test_an_object_is_there_for_whom_it_is_exported_to(export_to: tuple[str, ...], seen: bool) -> None:
    assert exported_to(export_to, "shop", "edge") is seen
    assert exported_to((".",), "edge", "edge")
