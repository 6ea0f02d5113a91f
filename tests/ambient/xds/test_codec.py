"""Discovery resources: what a real istiod sends is understood whole; what is not understood is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from pathlib import Path
from typing import Any

import pytest

from ambient.model.policy import Action, Authorization, Match, PolicyScope, StringMatch, StringMatchKind
from ambient.model.workload import Service, TunnelProtocol, Workload
from ambient.xds.codec import ADDRESS_TYPE, AUTHORIZATION_TYPE, Refusal, decode, encode, name_of
from ambient.xds.messages import decode_response
from ambient.xds.wire import message
from tests.support.discovery import rich_policy, rich_service, rich_workload

GOLDEN = Path(__file__).parents[2] / "golden" / "xds"


def golden(name: str) -> list[tuple[str, str, bytes]]:
    response = decode_response((GOLDEN / name).read_bytes())
    return [(r.type_url, r.name, r.body) for r in response.resources]


@pytest.mark.parametrize(("file", "count"), [("000-address.pb", 43), ("001-authorization.pb", 10)])
def test_everything_a_real_istiod_sends_is_read_and_written_again_with_the_same_meaning(file: str, count: int) -> None:
    resources = golden(file)
    assert len(resources) == count
    for type_url, name, body in resources:
        record = decode(type_url, name, body)
        assert name_of(record) == name
        ours = encode(record)
        assert decode(type_url, name, ours.body) == record
        kind = message(type_url.partition("/")[2])
        theirs = kind.FromString(body)
        again = kind.FromString(ours.body)
        # The one difference: istiod may leave the default account out.
        for wire in (theirs, again):
            if type_url == ADDRESS_TYPE and wire.workload.service_account == "default":
                wire.workload.service_account = ""
        assert again == theirs, name


def test_a_golden_workload_has_the_fields_that_istiod_meant() -> None:
    records = {name: decode(url, name, body) for url, name, body in golden("000-address.pb")}
    pod = records["Kubernetes//Pod/mesh/srv-x"]
    assert isinstance(pod, Workload)
    assert pod.addresses == (IPv4Address("10.244.2.5"),)
    assert pod.tunnel_protocol is TunnelProtocol.HBONE
    assert str(pod.identity) == "spiffe://cluster.local/ns/mesh/sa/srv-x"
    assert pod.authorization_policies == ("mesh/allow-client", "istio-system/istio_converted_static_strict")
    assert [p.target_port for p in pod.services["mesh/srv-x.mesh.svc.cluster.local"]] == [8080, 5201]


def test_a_golden_policy_has_its_rules() -> None:
    records = {name: decode(url, name, body) for url, name, body in golden("001-authorization.pb")}
    policy = records["mesh/allow-client"]
    assert isinstance(policy, Authorization)
    assert policy.action is Action.ALLOW
    assert policy.scope is PolicyScope.WORKLOAD_SELECTOR
    assert policy.rules[0] == (
        (Match(destination_ports=(8080, 5201)),),
        (Match(principals=(StringMatch(StringMatchKind.EXACT, "cluster.local/ns/mesh/sa/client"),)),),
    )
    assert policy.rules[1][0][0].source_ips == (IPv4Network("10.9.0.0/16"),)


@pytest.mark.parametrize("record", [rich_workload(), rich_service(), rich_policy()])
def test_every_field_survives_the_wire(record: Workload | Service | Authorization) -> None:
    resource = encode(record)
    assert decode(resource.type_url, resource.name, resource.body) == record
    assert encode(record) == resource


def test_the_version_depends_on_the_content_alone() -> None:
    assert encode(rich_workload()).version == encode(rich_workload()).version
    assert encode(rich_workload(node="other")).version != encode(rich_workload()).version


def test_receivers_defaults_are_filled_in() -> None:
    address = message("istio.workload.Address")()
    address.workload.uid = "u"
    workload = decode(ADDRESS_TYPE, "u", address.SerializeToString())
    assert isinstance(workload, Workload)
    assert (workload.trust_domain, workload.service_account, workload.cluster_id, workload.capacity) == (
        "cluster.local",
        "default",
        "Kubernetes",
        1,
    )


def test_mapped_addresses_and_networks_become_ipv4() -> None:
    address = message("istio.workload.Address")()
    address.workload.uid = "u"
    address.workload.addresses.append(IPv6Address("::ffff:10.0.0.1").packed)
    workload = decode(ADDRESS_TYPE, "u", address.SerializeToString())
    assert isinstance(workload, Workload)
    assert workload.addresses == (IPv4Address("10.0.0.1"),)
    wire = policy_wire()
    match = wire.rules[0].clauses[0].matches[0]
    match.source_ips.add(address=IPv6Address("::ffff:10.0.0.1").packed, length=120)
    policy = decode(AUTHORIZATION_TYPE, "ns/p", wire.SerializeToString())
    assert isinstance(policy, Authorization)
    assert policy.rules[0][0][0].source_ips == (IPv4Network("10.0.0.0/24"),)


def policy_wire() -> Any:
    wire = message("istio.security.Authorization")(name="p", namespace="ns")
    wire.rules.add().clauses.add().matches.add()
    return wire


def workload_wire() -> Any:
    address = message("istio.workload.Address")()
    address.workload.uid = "u"
    address.workload.namespace = "ns"
    return address


def service_wire() -> Any:
    address = message("istio.workload.Address")()
    address.service.namespace, address.service.hostname = "ns", "h"
    return address


def _set(path: str, **fields: Any) -> Callable[[Any], None]:
    """Set fields of the message at a dotted path; `[]` adds an element."""

    def change(wire: Any) -> None:
        for step in path.split(".") if path else ():
            wire = getattr(wire, step[:-2]).add() if step.endswith("[]") else getattr(wire, step)
        wire.SetInParent()
        for name, value in fields.items():
            if isinstance(value, list):
                getattr(wire, name).extend(value)
            else:
                setattr(wire, name, value)

    return change


def _gateway_with_port(port: int) -> Callable[[Any], None]:
    def change(wire: Any) -> None:
        wire.workload.waypoint.hostname.hostname = "h"
        wire.workload.waypoint.hbone_mtls_port = port

    return change


BAD_WORKLOADS = {
    "3 bytes": _set("workload", addresses=[b"abc"]),
    "17 bytes": _set("workload", addresses=[b"a" * 17]),
    "LEGACY_ISTIO_MTLS": _set("workload", tunnel_protocol=2),
    "tunnel_protocol 3": _set("workload", tunnel_protocol=3),
    "workload_type 9": _set("workload", workload_type=9),
    "status 2": _set("workload", status=2),
    "network_mode 2": _set("workload", network_mode=2),
    "waypoint has no destination": _set("workload.waypoint", hbone_mtls_port=15008),
    "hbone_mtls_port 70000": _gateway_with_port(70000),
    "network_gateway has no destination": _set("workload.network_gateway"),
    "application_tunnel.protocol 2": _set("workload.application_tunnel", protocol=2),
    "application_tunnel.port 65536": _set("workload.application_tunnel", port=65536),
    "authorization_policies names 'x'": _set("workload", authorization_policies=["x"]),
    "authorization_policies names 'a/b/c'": _set("workload", authorization_policies=["a/b/c"]),
    "content is named 'other'": _set("workload", uid="other"),
    "uid is empty": _set("workload", uid=""),
    "SPIFFE": _set("workload", tunnel_protocol=1, namespace="a/b"),
}


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
    "without a slash": _set("service", hostname="a/b"),
    "must both be there": _set("service", hostname=""),
    "addresses has 5 bytes": _set("service.addresses[]", address=b"abcde"),
    "prefix length 33": _set("service.addresses[]", address=b"abcd", length=33),
    "prefix length 129": _set("service.addresses[]", address=b"a" * 16, length=129),
    "too short for an IPv4-mapped": _set(
        "service.addresses[]", address=IPv6Address("::ffff:1.2.3.4").packed, length=95
    ),
    "target_port 65536": _set("service.ports[]", service_port=1, target_port=65536),
    "app_protocol 6": _set("service.ports[]", service_port=1, app_protocol=6),
    "load_balancing.mode 4": _set("service.load_balancing", mode=4),
    "routing_preference 7": _set("service.load_balancing", routing_preference=[7]),
    "routing_preference 0": _set("service.load_balancing", routing_preference=[0]),
    "health_policy 2": _set("service.load_balancing", health_policy=2),
    "ip_families 4": _set("service", ip_families=4),
    "visibility 2": _set("service", visibility=2),
    "weighted_waypoints has no destination": _set("service.weighted_waypoints[]", weight=1),
    "waypoint.hostname is empty": _set("service.waypoint.hostname", namespace="ns"),
}


@pytest.mark.parametrize("reason", BAD_SERVICES)
def test_a_service_with_one_bad_field_is_refused_whole(reason: str) -> None:
    wire = service_wire()
    BAD_SERVICES[reason](wire)
    with pytest.raises(Refusal, match=reason.replace(".", r"\.")):
        decode(ADDRESS_TYPE, "ns/h", wire.SerializeToString())


def _match(**fields: Any) -> Callable[[Any], None]:
    def change(wire: Any) -> None:
        for name, value in fields.items():
            getattr(wire.rules[0].clauses[0].matches[0], name).extend(value)

    return change


def _address(raw: bytes, length: int) -> Any:
    return message("istio.security.Address")(address=raw, length=length)


BAD_POLICIES = {
    "scope 3": _set("", scope=3),
    "action 2": _set("", action=2),
    "must both be there": _set("", name=""),
    "content is named 'other/p'": _set("", namespace="other"),
    "destination_ports 65536": _match(destination_ports=[65536]),
    "source_ips has prefix length 33": _match(source_ips=[_address(b"abcd", 33)]),
    "not_destination_ips has prefix length 129": _match(not_destination_ips=[_address(b"a" * 16, 129)]),
    "destination_ips has 0 bytes": _match(destination_ips=[_address(b"", 0)]),
    "namespaces has no kind": _match(namespaces=[message("istio.security.StringMatch")()]),
    "needs a namespace and": _match(service_accounts=[message("istio.security.ServiceAccountMatch")(namespace="a")]),
    "matches[0].extensions": _match(extensions=[message("istio.security.Extension")(name="e")]),
    "extensions are not understood": _set("extensions[]", name="e"),
}


@pytest.mark.parametrize("reason", BAD_POLICIES)
def test_a_policy_with_one_bad_field_is_refused_whole(reason: str) -> None:
    wire = policy_wire()
    BAD_POLICIES[reason](wire)
    with pytest.raises(Refusal) as caught:
        decode(AUTHORIZATION_TYPE, "ns/p", wire.SerializeToString())
    assert reason in str(caught.value)


STRANGE = b"\xf2\x07\x03new"
"""Field 126, text: what a newer sender might add."""


@pytest.mark.parametrize("depth", ["top", "rule", "clause", "match", "string"])
def test_a_policy_with_a_field_of_the_future_is_refused_at_any_depth(depth: str) -> None:
    string = b"\x0a\x01n" + (STRANGE if depth == "string" else b"")
    match = b"\x0a" + bytes([len(string)]) + string + (STRANGE if depth == "match" else b"")
    clause = b"\x12" + bytes([len(match)]) + match + (STRANGE if depth == "clause" else b"")
    rule = b"\x0a" + bytes([len(clause)]) + clause + (STRANGE if depth == "rule" else b"")
    body = b"\x0a\x01p\x12\x02ns" + b"\x2a" + bytes([len(rule)]) + rule + (STRANGE if depth == "top" else b"")
    with pytest.raises(Refusal, match="field 126 is unknown"):
        decode(AUTHORIZATION_TYPE, "ns/p", body)
    assert name_of(decode(AUTHORIZATION_TYPE, "ns/p", body, lax=True)) == "ns/p"


def test_a_workload_with_a_field_of_the_future_is_accepted() -> None:
    body = workload_wire().workload.SerializeToString() + STRANGE
    assert name_of(decode(ADDRESS_TYPE, "u", b"\x0a" + bytes([len(body)]) + body)) == "u"


@pytest.mark.parametrize("body", [b"", b"\xff", b"\x1a\x00", b"\x0a\x02\x1a"])
def test_bytes_that_are_no_address_are_refused(body: bytes) -> None:
    with pytest.raises(Refusal):
        decode(ADDRESS_TYPE, "u", body)


def test_a_type_nobody_asked_for_is_refused() -> None:
    with pytest.raises(Refusal, match="not one we asked for"):
        decode("type.googleapis.com/envoy.Cluster", "c", b"")


def test_host_bits_of_a_network_are_masked() -> None:
    wire = policy_wire()
    wire.rules[0].clauses[0].matches[0].source_ips.add(address=b"\x0a\x01\x02\x03", length=16)
    wire.rules[0].clauses[0].matches[0].source_ips.add(address=IPv6Address("fd00::1").packed, length=8)
    policy = decode(AUTHORIZATION_TYPE, "ns/p", wire.SerializeToString())
    assert isinstance(policy, Authorization)
    assert policy.rules[0][0][0].source_ips == (ip_network("10.1.0.0/16"), IPv6Network("fd00::/8"))
