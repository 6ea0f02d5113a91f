"""Workloads and services on the wire: one bad field refuses the whole resource, by name."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import pytest

from ambient.model.workload import Workload
from ambient.xds.codec import ADDRESS_TYPE, Refusal, decode, name_of
from tests.support.discovery import STRANGE_FIELD, service_wire, setting_of, workload_wire


def _gateway_with_port(port: int) -> Callable[[Any], None]:
    def change(wire: Any) -> None:
        wire.workload.waypoint.hostname.hostname = "h"
        wire.workload.waypoint.hbone_mtls_port = port

    return change


BAD_WORKLOADS = {
    "3 bytes": setting_of("workload", addresses=[b"abc"]),
    "17 bytes": setting_of("workload", addresses=[b"a" * 17]),
    "LEGACY_ISTIO_MTLS": setting_of("workload", tunnel_protocol=2),
    "tunnel_protocol 3": setting_of("workload", tunnel_protocol=3),
    "workload_type 9": setting_of("workload", workload_type=9),
    "status 2": setting_of("workload", status=2),
    "network_mode 2": setting_of("workload", network_mode=2),
    "waypoint has no destination": setting_of("workload.waypoint", hbone_mtls_port=15008),
    "hbone_mtls_port 70000": _gateway_with_port(70000),
    "network_gateway has no destination": setting_of("workload.network_gateway"),
    "application_tunnel.protocol 2": setting_of("workload.application_tunnel", protocol=2),
    "application_tunnel.port 65536": setting_of("workload.application_tunnel", port=65536),
    "authorization_policies names 'x'": setting_of("workload", authorization_policies=["x"]),
    "authorization_policies names 'a/b/c'": setting_of("workload", authorization_policies=["a/b/c"]),
    "content is named 'other'": setting_of("workload", uid="other"),
    "uid is empty": setting_of("workload", uid=""),
    "SPIFFE": setting_of("workload", tunnel_protocol=1, namespace="a/b"),
}


def test_an_address_that_is_neither_workload_nor_service_is_refused() -> None:
    with pytest.raises(Refusal, match="neither a workload nor a service"):
        decode(ADDRESS_TYPE, "x", b"")


@pytest.mark.parametrize("reason", BAD_WORKLOADS)
def test_a_workload_with_one_bad_field_is_refused_whole(reason: str) -> None:
    wire = workload_wire()
    BAD_WORKLOADS[reason](wire)
    with pytest.raises(Refusal, match=reason.replace(".", r"\.")) as caught:
        decode(ADDRESS_TYPE, "u", wire.SerializeToString())
    assert caught.value.where == "u"


def test_a_workload_with_a_bad_service_port_or_key_is_refused() -> None:
    for key, port, reason in (("ns/h", 65536, "service_port 65536"), ("h", 1, "services names 'h'")):
        wire = workload_wire()
        wire.workload.services[key].ports.add(service_port=port)
        with pytest.raises(Refusal, match=reason):
            decode(ADDRESS_TYPE, "u", wire.SerializeToString())


MAPPED = IPv6Address("::ffff:1.2.3.4").packed

BAD_SERVICES = {
    "without a slash": setting_of("service", hostname="a/b"),
    "must both be there": setting_of("service", hostname=""),
    "addresses has 5 bytes": setting_of("service.addresses[]", address=b"abcde"),
    "prefix length 33": setting_of("service.addresses[]", address=b"abcd", length=33),
    "prefix length 129": setting_of("service.addresses[]", address=b"a" * 16, length=129),
    "too short for an IPv4-mapped": setting_of(
        "service.addresses[]", address=IPv6Address("::ffff:1.2.3.4").packed, length=95
    ),
    "target_port 65536": setting_of("service.ports[]", service_port=1, target_port=65536),
    "app_protocol 6": setting_of("service.ports[]", service_port=1, app_protocol=6),
    "load_balancing.mode 4": setting_of("service.load_balancing", mode=4),
    "routing_preference 7": setting_of("service.load_balancing", routing_preference=[7]),
    "routing_preference 0": setting_of("service.load_balancing", routing_preference=[0]),
    "health_policy 2": setting_of("service.load_balancing", health_policy=2),
    "ip_families 4": setting_of("service", ip_families=4),
    "visibility 2": setting_of("service", visibility=2),
    "weighted_waypoints has no destination": setting_of("service.weighted_waypoints[]", weight=1),
    "waypoint.hostname is empty": setting_of("service.waypoint.hostname", namespace="ns"),
}


@pytest.mark.parametrize("reason", BAD_SERVICES)
def test_a_service_with_one_bad_field_is_refused_whole(reason: str) -> None:
    wire = service_wire()
    BAD_SERVICES[reason](wire)
    with pytest.raises(Refusal, match=reason.replace(".", r"\.")):
        decode(ADDRESS_TYPE, "ns/h", wire.SerializeToString())


def test_a_workload_with_a_field_of_the_future_is_accepted() -> None:
    body = workload_wire().workload.SerializeToString() + STRANGE_FIELD
    assert name_of(decode(ADDRESS_TYPE, "u", b"\x0a" + bytes([len(body)]) + body)) == "u"


def test_mapped_addresses_become_ipv4() -> None:
    wire = workload_wire()
    wire.workload.addresses.append(IPv6Address("::ffff:10.0.0.1").packed)
    workload = decode(ADDRESS_TYPE, "u", wire.SerializeToString())
    assert isinstance(workload, Workload)
    assert workload.addresses == (IPv4Address("10.0.0.1"),)
