"""The client of delta discovery: what it applies, refuses, holds, closes and remembers."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from ambient.errors import ProtocolError
from ambient.model.policy import Action, Authorization, PolicyScope
from ambient.model.workload import NetworkMode, Service, Visibility, Workload
from ambient.xds.client import Batch, DeltaClient
from ambient.xds.codec import ADDRESS_TYPE, AUTHORIZATION_TYPE, Record, Resource, encode
from ambient.xds.messages import DeltaRequest, DeltaResponse, ztunnel_node
from ambient.xds.wire import message
from tests.support.discovery import rich_service, simple_policy, simple_workload

NODE = ztunnel_node("n1")


def respond(
    *records: Record | Resource, gone: tuple[str, ...] = (), nonce: str = "1", url: str = ADDRESS_TYPE
) -> DeltaResponse:
    resources = tuple(item if isinstance(item, Resource) else encode(item) for item in records)
    return DeltaResponse(type_url=url, nonce=nonce, resources=resources, removed=gone)


def policies(*records: Record | Resource, gone: tuple[str, ...] = (), nonce: str = "1") -> DeltaResponse:
    return respond(*records, gone=gone, nonce=nonce, url=AUTHORIZATION_TYPE)


def bad(name: str, url: str = ADDRESS_TYPE) -> Resource:
    return Resource(url, name, "bad", b"\xff")


def bad_policy(name: str = "ns/bad", **fields: object) -> Resource:
    """A policy with a field of the future."""
    namespace, _, own = name.partition("/")
    wire = message("istio.security.Authorization")(name=own, namespace=namespace, **fields)
    return Resource(AUTHORIZATION_TYPE, name, "bad", wire.SerializeToString() + b"\xf2\x07\x03new")


def understood(batch: Batch) -> tuple[Record, ...]:
    """What is put without what only stands in for something refused."""
    return tuple(one for one in batch.put if isinstance(one, Authorization) or not one.refused)


def keys(batch: Batch) -> set[str]:
    return {encode(record).name for record in batch.put}


A, B = simple_workload("a"), simple_workload("b")


def test_the_first_requests_subscribe_to_everything_of_each_type() -> None:
    assert DeltaClient(NODE).open() == [
        DeltaRequest(type_url=AUTHORIZATION_TYPE, node=NODE), DeltaRequest(type_url=ADDRESS_TYPE, node=NODE),
    ]  # fmt: skip


def test_resources_are_put_and_acknowledged() -> None:
    client = DeltaClient(NODE)
    batch, answer = client.receive(respond(A, rich_service(), nonce="7"))
    assert batch.put == (A, rich_service())
    assert batch.first
    assert answer == DeltaRequest(type_url=ADDRESS_TYPE, nonce="7")
    assert not client.receive(respond(B))[0].first


def test_complete_needs_every_type() -> None:
    client = DeltaClient(NODE)
    client.receive(respond())
    assert not client.complete
    client.receive(policies())
    assert client.complete


def test_removal_is_reported_only_of_what_we_had() -> None:
    client = DeltaClient(NODE)
    client.receive(respond(A))
    batch, _ = client.receive(respond(gone=(A.uid, "never seen")))
    assert batch.gone == (("workload", A.uid), ("service", A.uid))
    assert client.versions()[ADDRESS_TYPE] == {}


def test_a_new_stream_tells_the_versions_of_what_we_have() -> None:
    client = DeltaClient(NODE)
    client.receive(respond(A, B))
    client.receive(respond(gone=(B.uid,)))
    assert client.open()[1].versions == {A.uid: encode(A).version}


def test_a_later_process_continues_with_the_versions_of_an_earlier_one() -> None:
    first = DeltaClient(NODE)
    first.receive(respond(A))
    second = DeltaClient(NODE, versions=first.versions())
    assert second.open()[1].versions == {A.uid: encode(A).version}
    assert second.receive(respond(gone=(A.uid,)))[0].gone


def test_a_type_nobody_asked_for_breaks_the_protocol() -> None:
    with pytest.raises(ProtocolError, match="not a type we asked for"):
        DeltaClient(NODE, types=[ADDRESS_TYPE]).receive(policies())


def test_a_refused_response_changes_nothing_and_names_each_culprit() -> None:
    client = DeltaClient(NODE)
    client.receive(respond(A))
    before = client.versions()
    batch, answer = client.receive(respond(B, bad("x"), bad("y"), gone=(A.uid,), nonce="9"))
    assert understood(batch) == ()
    assert batch.gone == ()
    assert set(batch.refused) == {"x", "y"}
    assert answer.nonce == "9"
    assert answer.error is not None
    assert [part.partition(": ")[0] for part in answer.error.split("; ")] == ["x", "y"]
    assert client.versions()[ADDRESS_TYPE] == {**before[ADDRESS_TYPE], "x": "refused", "y": "refused"}


def test_the_good_part_of_a_refused_response_is_applied_once_the_bad_part_is_replaced() -> None:
    client = DeltaClient(NODE)
    client.receive(respond(A))
    client.receive(respond(B, bad(A.uid), gone=()))
    unrelated = simple_workload("c")
    assert keys(client.receive(respond(unrelated))[0]) == {unrelated.uid}
    repaired = replace(A, node="n2")
    batch, answer = client.receive(respond(repaired))
    assert keys(batch) == {A.uid, B.uid}
    assert answer.error is None


def test_what_arrives_later_wins_over_what_is_held() -> None:
    client = DeltaClient(NODE)
    client.receive(respond(B, bad("x")))
    newer = replace(B, node="n9")
    assert client.receive(respond(newer))[0].put == (newer,)
    assert client.receive(respond(gone=("x",)))[0].put == ()


def test_a_removal_within_a_refused_response_is_held_too() -> None:
    client = DeltaClient(NODE)
    client.receive(respond(A))
    assert client.receive(respond(bad("x"), gone=(A.uid,)))[0].gone == ()
    gone = client.receive(respond(gone=("x",)))[0].gone
    assert set(gone) == {(kind, name) for kind in ("workload", "service") for name in (A.uid, "x")}


def test_what_is_held_does_not_survive_the_stream_because_the_server_sends_it_again() -> None:
    client = DeltaClient(NODE)
    client.receive(respond(B, bad("x")))
    assert client.open()[1].versions == {"x": "refused"}
    assert client.receive(respond(gone=("x",)))[0].put == ()


def test_the_same_name_twice_in_a_response_is_refused() -> None:
    client = DeltaClient(NODE)
    assert A.uid in client.receive(respond(A, replace(A, node="n2")))[0].refused
    assert A.uid in client.receive(respond(A, gone=(A.uid,)))[0].refused


def test_a_resource_without_name_or_of_another_type_is_refused() -> None:
    client = DeltaClient(NODE)
    assert client.receive(respond(replace(encode(A), name="")))[0].refused == {"": "has no name"}
    (why,) = client.receive(respond(encode(simple_policy("p"))))[0].refused.values()
    assert why.startswith("is a 'type.googleapis.com/istio.security.Authorization' in a response about")


def test_a_refused_policy_without_a_good_version_closes_what_it_selects() -> None:
    client = DeltaClient(NODE)
    batch, answer = client.receive(policies(bad_policy("ns/p", scope=0)))
    assert batch.put == (
        Authorization(name="p", namespace="ns", scope=PolicyScope.GLOBAL, action=Action.DENY, rules=((),)),
    )
    assert answer.error is not None


def test_a_policy_that_cannot_even_be_parsed_closes_its_namespace() -> None:
    put = DeltaClient(NODE).receive(policies(bad("ns/p", AUTHORIZATION_TYPE)))[0].put
    assert [(p.namespace, p.scope, p.action) for p in put if isinstance(p, Authorization)] == [
        ("ns", PolicyScope.NAMESPACE, Action.DENY)
    ]


def test_a_refused_policy_with_a_good_version_leaves_that_in_force() -> None:
    client = DeltaClient(NODE)
    client.receive(policies(simple_policy("p")))
    assert client.receive(policies(bad_policy("ns/p")))[0].put == ()


def test_a_refused_dry_run_policy_closes_nothing() -> None:
    assert DeltaClient(NODE).receive(policies(bad_policy(dry_run=True)))[0].put == ()


def test_a_stand_in_gives_way_to_the_repaired_policy_and_to_its_removal() -> None:
    client = DeltaClient(NODE)
    client.receive(policies(bad_policy("ns/p")))
    assert client.receive(policies(simple_policy("p")))[0].put == (simple_policy("p"),)
    client.receive(policies(bad_policy("ns/q")))
    assert client.receive(policies(gone=("ns/q",)))[0].gone == (("authorization", "ns/q"),)


def test_a_stand_in_is_announced_on_a_new_stream_so_that_its_removal_is_heard_of() -> None:
    client = DeltaClient(NODE)
    client.receive(policies(bad_policy("ns/p")))
    versions = client.open()[0].versions
    assert set(versions) == {"ns/p"}
    assert versions["ns/p"] != "bad"


def bad_workload(**fields: object) -> Resource:
    """A workload that speaks a tunnel protocol we do not."""
    wire = message("istio.workload.Address")()
    parts: dict[str, object] = {"uid": "c1//Pod/ns/w", "name": "w", "namespace": "ns", "tunnel_protocol": 2, **fields}
    wire.workload.CopyFrom(message("istio.workload.Workload")(**parts))
    return Resource(ADDRESS_TYPE, "c1//Pod/ns/w", "bad", wire.SerializeToString())


def bad_service(**fields: object) -> Resource:
    """A service with a port that is none."""
    wire = message("istio.workload.Address")()
    parts: dict[str, object] = {"namespace": "ns", "hostname": "w.example", "ports": [{"service_port": 1 << 20}]}
    wire.service.CopyFrom(message("istio.workload.Service")(**{**parts, **fields}))
    return Resource(ADDRESS_TYPE, "ns/w.example", "bad", wire.SerializeToString())


def test_a_refused_workload_without_a_good_version_is_closed_where_it_is() -> None:
    client = DeltaClient(NODE)
    addresses = [bytes((10, 0, 0, 7)), b"\1\2\3", ip_address("fd00::7").packed]
    fields = {"addresses": addresses, "network": "west", "hostname": "w.example", "network_mode": 1, "node": "n9"}
    batch, _ = client.receive(respond(bad_workload(**fields, services={"ns/web.example": {}, "nonsense": {}})))
    (one,) = batch.put
    assert isinstance(one, Workload)
    assert (one.uid, one.name, one.namespace, one.network, one.hostname, one.node) == (
        *("c1//Pod/ns/w", "w", "ns", "west", "w.example", "n9"),
    )
    assert [str(ip) for ip in one.addresses] == ["10.0.0.7", "fd00::7"]
    assert (set(one.services), one.network_mode) == ({"ns/web.example"}, NetworkMode.HOST_NETWORK)
    assert "LEGACY_ISTIO_MTLS" in one.refused
    assert client.stand_ins == 1


def test_a_refused_service_without_a_good_version_is_closed_where_it_is() -> None:
    client = DeltaClient(NODE)
    vips = [
        {"network": "west", "address": bytes((10, 96, 0, 1))},
        {"network": "", "address": bytes((10, 97, 0, 0)), "length": 16},
        {"network": "", "address": bytes((10, 98, 0, 0)), "length": 99},
        {"network": "", "address": b"?"},
    ]
    (one,) = client.receive(respond(bad_service(addresses=vips, canonical=True, visibility=1)))[0].put
    assert isinstance(one, Service)
    assert (one.key, one.canonical, one.visibility) == ("ns/w.example", True, Visibility.NAMESPACE)
    assert [str(vip) for vip in one.addresses] == ["west/10.96.0.1", "/10.97.0.0/16", "/10.98.0.0"]
    assert one.refused


@pytest.mark.parametrize(
    ("name", "kind", "addresses"),
    [
        ("c1//Pod/ns/w", Workload, ()),
        ("c1/networking.istio.io/ServiceEntry/ns/db/192.0.2.9", Workload, ("192.0.2.9",)),
        ("c1/discovery.k8s.io/EndpointSlice/ns/s/fd00::9", Workload, ("fd00::9",)),
        ("ns/w.example", Service, ()),
    ],
)
def test_of_what_cannot_be_parsed_the_name_is_closed_and_the_address_in_it(
    name: str, kind: type[object], addresses: tuple[str, ...]
) -> None:
    (one,) = DeltaClient(NODE).receive(respond(bad(name)))[0].put
    assert isinstance(one, kind)
    assert encode(one).name == name
    assert tuple(str(ip) for ip in getattr(one, "addresses", ())) == addresses


def test_a_refused_address_with_a_good_version_leaves_that_in_force() -> None:
    client = DeltaClient(NODE)
    client.receive(respond(A))
    assert client.receive(respond(bad(A.uid)))[0].put == ()


def test_what_stands_in_for_an_address_gives_way_to_the_repaired_one_and_to_its_removal() -> None:
    client = DeltaClient(NODE)
    client.receive(respond(bad(A.uid)))
    assert client.receive(respond(A))[0].put == (A,)
    assert client.stand_ins == 0
    client.receive(respond(bad(B.uid)))
    assert set(client.receive(respond(gone=(B.uid,)))[0].gone) == {("workload", B.uid), ("service", B.uid)}
    assert client.stand_ins == 0


def test_with_istios_laxness_the_good_part_is_applied_at_once_and_nothing_is_closed() -> None:
    client = DeltaClient(NODE, lax=True)
    batch, answer = client.receive(respond(A, bad("x"), gone=()))
    assert batch.put == (A,)
    assert answer.error is not None
    assert "x" not in client.versions()[ADDRESS_TYPE]
    assert client.receive(policies(bad("ns/p", AUTHORIZATION_TYPE)))[0].put == ()
