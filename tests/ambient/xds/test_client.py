"""The client of delta discovery: what it applies, refuses, holds, closes and remembers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ambient.errors import ProtocolError
from ambient.model.policy import Action, Authorization, PolicyScope
from ambient.xds.client import Batch, DeltaClient
from ambient.xds.codec import ADDRESS_TYPE, AUTHORIZATION_TYPE, TYPES, Record, Resource, encode
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


def keys(batch: Batch) -> set[str]:
    return {encode(record).name for record in batch.put}


A, B = simple_workload("a"), simple_workload("b")


def test_the_first_requests_subscribe_to_everything_of_each_type() -> None:
    assert DeltaClient(NODE).open() == [DeltaRequest(type_url=url, node=NODE) for url in TYPES]


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
    assert client.open()[0].versions == {A.uid: encode(A).version}


def test_a_later_process_continues_with_the_versions_of_an_earlier_one() -> None:
    first = DeltaClient(NODE)
    first.receive(respond(A))
    second = DeltaClient(NODE, versions=first.versions())
    assert second.open()[0].versions == {A.uid: encode(A).version}
    assert second.receive(respond(gone=(A.uid,)))[0].gone


def test_a_type_nobody_asked_for_breaks_the_protocol() -> None:
    with pytest.raises(ProtocolError, match="not a type we asked for"):
        DeltaClient(NODE, types=[ADDRESS_TYPE]).receive(policies())


def test_a_refused_response_changes_nothing_and_names_each_culprit() -> None:
    client = DeltaClient(NODE)
    client.receive(respond(A))
    before = client.versions()
    batch, answer = client.receive(respond(B, bad("x"), bad("y"), gone=(A.uid,), nonce="9"))
    assert batch.put == ()
    assert batch.gone == ()
    assert set(batch.refused) == {"x", "y"}
    assert answer.nonce == "9"
    assert answer.error is not None
    assert [part.partition(": ")[0] for part in answer.error.split("; ")] == ["x", "y"]
    assert client.versions() == before


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
    assert client.receive(respond(gone=("x",)))[0].gone == (("workload", A.uid), ("service", A.uid))


def test_what_is_held_does_not_survive_the_stream_because_the_server_sends_it_again() -> None:
    client = DeltaClient(NODE)
    client.receive(respond(B, bad("x")))
    assert client.open()[0].versions == {}
    assert client.receive(respond(gone=("x",)))[0].put == ()


def test_the_same_name_twice_in_a_response_is_refused() -> None:
    client = DeltaClient(NODE)
    assert A.uid in client.receive(respond(A, replace(A, node="n2")))[0].refused
    assert A.uid in client.receive(respond(A, gone=(A.uid,)))[0].refused


def test_a_resource_without_name_or_of_another_type_is_refused() -> None:
    client = DeltaClient(NODE)
    assert client.receive(respond(replace(encode(A), name="")))[0].refused
    assert client.receive(respond(encode(simple_policy("p"))))[0].refused


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
    versions = client.open()[1].versions
    assert set(versions) == {"ns/p"}
    assert versions["ns/p"] != "bad"


def test_with_istios_laxness_the_good_part_is_applied_at_once_and_nothing_is_closed() -> None:
    client = DeltaClient(NODE, lax=True)
    batch, answer = client.receive(respond(A, bad("x"), gone=()))
    assert batch.put == (A,)
    assert answer.error is not None
    assert "x" not in client.versions()[ADDRESS_TYPE]
    assert client.receive(policies(bad("ns/p", AUTHORIZATION_TYPE)))[0].put == ()
