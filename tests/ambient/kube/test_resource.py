"""Paths of the Kubernetes API."""

from __future__ import annotations

import pytest

from ambient.errors import InvalidInput
from ambient.kube.objects import KINDS, resources
from ambient.kube.resource import Resource

PODS = Resource("v1", "pods")
POLICIES = Resource("security.istio.io/v1", "authorizationpolicies")
NODES = Resource("v1", "nodes", namespaced=False)


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        (PODS.path(), "/api/v1/pods"),
        (PODS.path("shop"), "/api/v1/namespaces/shop/pods"),
        (PODS.path("shop", "a.b-c"), "/api/v1/namespaces/shop/pods/a.b-c"),
        (PODS.path("shop", "a", "status"), "/api/v1/namespaces/shop/pods/a/status"),
        (POLICIES.path("shop"), "/apis/security.istio.io/v1/namespaces/shop/authorizationpolicies"),
        (POLICIES.at("security.istio.io/v1beta1").path(), "/apis/security.istio.io/v1beta1/authorizationpolicies"),
        (NODES.path("shop", "n1"), "/api/v1/nodes/n1"),
        (POLICIES.discovery, "/apis/security.istio.io/v1"),
        (PODS.discovery, "/api/v1"),
    ],
)
def test_a_path_names_group_version_namespace_kind_name_and_part(path: str, expected: str) -> None:
    assert path == expected


@pytest.mark.parametrize("name", ["../secrets", "a/b", "a?b", "..", ".", "a#b", "a b", "%2e%2e"])
def test_a_name_cannot_lead_to_another_path(name: str) -> None:
    with pytest.raises(InvalidInput, match="not the name"):
        PODS.path("shop", name)
    with pytest.raises(InvalidInput, match="not the name"):
        PODS.path(name, "a")


def test_every_kind_that_is_read_has_its_place() -> None:
    for kind in KINDS:
        places = resources(kind)
        assert places
        assert all(place.plural == place.plural.lower() for place in places)
    assert resources("Pod") == (PODS,)
    assert resources("Node") == (NODES,)
    assert [place.group_version for place in resources("PeerAuthentication")] == [
        "security.istio.io/v1",
        "security.istio.io/v1beta1",
    ]
