"""A mesh out of a local file: read whole, in Istio's form, or refused by name."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from ambient.errors import InvalidInput, Unavailable
from ambient.model.outcome import Forward
from ambient.model.policy import Action, Authorization
from ambient.model.workload import Port, Service, TunnelProtocol, Workload
from tests.support.director_world import ALICE, World, scenario
from tests.support.fake_worker import own_netns
from tests.support.waiting import eventually
from ztunnel.config import read_config
from ztunnel.director.local import local_records, read_local
from ztunnel.ipc import messages as ipc

TEXT = """
workloads:
- uid: Kubernetes//Pod/shop/alice
  name: alice
  namespace: shop
  serviceAccount: alice-sa
  workloadIps: [10.0.0.1]
  protocol: HBONE
  node: n1
- name: bob
  namespace: shop
  serviceAccount: bob-sa
  workloadIps: [10.0.1.1, "fd00::1"]
  protocol: HBONE
  node: n2
  services:
    shop/web.example:
      80: 8080
services:
- name: web
  namespace: shop
  hostname: web.example
  vips: [/10.96.0.1]
  ports:
    80: 8080
policies:
- name: deny-9999
  namespace: shop
  scope: Namespace
  action: Deny
  rules:
  - - - destinationPorts: [9999]
"""


def test_istios_form_is_read_with_its_defaults() -> None:
    alice, bob, web, policy = read_local(TEXT, "file")
    assert isinstance(alice, Workload)
    assert isinstance(bob, Workload)
    assert isinstance(web, Service)
    assert isinstance(policy, Authorization)
    assert (alice.trust_domain, alice.cluster_id, alice.tunnel_protocol) == (
        "cluster.local",
        "Kubernetes",
        TunnelProtocol.HBONE,
    )
    assert dict(bob.services) == {"shop/web.example": (Port(80, 8080),)}
    assert bob.uid == "local//Pod/shop/bob"
    assert web.addresses[0].ip == ip_address("10.96.0.1")
    assert policy.action is Action.DENY
    assert policy.rules[0][0][0].destination_ports == (9999,)


def test_an_empty_file_is_an_empty_mesh() -> None:
    assert read_local("", "file") == ()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (("workloads:", "pods:"), "unknown field: file: pods"),
        (("workloadIps", "addresses"), r"unknown field: .*workloads\[0\].*: addresses"),
        (("vips", "clusterIPs"), r"unknown field: .*services\[0\]"),
        (("scope: Namespace", "scope: Namespace\n  target: x"), r"unknown field: .*policies\[0\]"),
        (("destinationPorts", "ports"), "unknown match"),
        (("destinationPorts: [9999]", "destinationPorts: [99999]"), "is no port"),
        (("shop/web.example:\n", "web.example:\n"), "expected namespace/hostname"),
        (("name: bob", "name: bob\n  uid: Kubernetes//Pod/shop/alice"), "is there twice"),
        (("[10.0.0.1]", "[10.0.0]"), "not an IP address"),
        (("workloads:", "workloads: ["), "not YAML"),
        (("workloads:", "- workloads:"), "not"),
    ],
)
def test_a_file_with_one_mistake_is_refused_whole(change: tuple[str, str], why: str) -> None:
    with pytest.raises(InvalidInput, match=why):
        read_local(TEXT.replace(*change, 1), "file")


def test_what_is_known_comes_from_one_place_only() -> None:
    for env in ({"XDS_ADDRESS": "h:1"}, {"LOCAL_XDS": TEXT}):
        with pytest.raises(InvalidInput, match="excludes"):
            read_config({"LOCAL_XDS_PATH": "/x", **env})


def test_the_file_and_the_text_say_the_same_and_a_missing_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "local.yaml"
    with pytest.raises(Unavailable, match=r"local\.yaml"):
        local_records(read_config({"LOCAL_XDS_PATH": str(path)}))
    path.write_text(TEXT)
    assert local_records(read_config({"LOCAL_XDS_PATH": str(path)})) == local_records(read_config({"LOCAL_XDS": TEXT}))


@scenario
async def test_a_director_with_a_local_file_needs_no_control_plane(world: World) -> None:
    world.config = replace(world.config, local_xds=TEXT, xds_address="https://localhost:15012")
    async with world.director() as director:
        assert director.discovery.settled
        worker = world.worker()
        await eventually(lambda: list(director.crew))
        await director.add(ALICE, own_netns())
        worker.say(ipc.RouteAsk(uid="uid-a", ip=ip_address("10.96.0.1"), port=80))
        plan = (await worker.hears(ipc.RouteAnswer)).plan
        assert isinstance(plan, Forward)
        assert plan.hops[0].authority == "10.0.1.1:8080"
        assert (await worker.hears(ipc.PodUp)).policy.policies[0].name == "deny-9999"
