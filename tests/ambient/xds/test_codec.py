"""Discovery resources: what a real istiod sends is understood whole; what is not understood is refused by name."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from pathlib import Path

import pytest

from ambient.model.policy import Action, Authorization, Match, PolicyScope, StringMatch, StringMatchKind
from ambient.model.workload import Service, TunnelProtocol, Workload
from ambient.xds.codec import ADDRESS_TYPE, Refusal, decode, encode, name_of
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


@pytest.mark.parametrize("body", [b"", b"\xff", b"\x1a\x00", b"\x0a\x02\x1a"])
def test_bytes_that_are_no_address_are_refused(body: bytes) -> None:
    with pytest.raises(Refusal):
        decode(ADDRESS_TYPE, "u", body)


def test_a_type_nobody_asked_for_is_refused() -> None:
    with pytest.raises(Refusal, match="not one we asked for"):
        decode("type.googleapis.com/envoy.Cluster", "c", b"")
