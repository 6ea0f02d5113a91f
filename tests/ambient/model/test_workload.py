"""Values of discovery: their names and defaults."""

from __future__ import annotations

from ipaddress import ip_address

from ambient.model.identity import Identity
from ambient.model.policy import Action, Authorization, PolicyScope
from ambient.model.workload import NamespacedHostname, NetworkAddress, Workload
from tests.support.builders import service


def test_a_workload_has_the_defaults_of_the_wire() -> None:
    bare = Workload(uid="u", name="n", namespace="ns")
    assert bare.identity == Identity("cluster.local", "ns", "default")
    assert (bare.cluster_id, bare.capacity, dict(bare.services)) == ("Kubernetes", 1, {})


def test_names_are_those_of_discovery() -> None:
    assert service("web").key == "default/web.default.svc.cluster.local"
    policy = Authorization(name="p", namespace="ns", scope=PolicyScope.GLOBAL, action=Action.DENY)
    assert policy.key == "ns/p"
    assert str(NetworkAddress("", ip_address("10.0.0.1"))) == "/10.0.0.1"
    assert str(NetworkAddress("east", ip_address("10.0.0.0"), 8)) == "east/10.0.0.0/8"
    assert str(NamespacedHostname("ns", "h")) == "ns/h"
