"""On-demand clients of the discovery server: names, aliases, misses, and what comes unasked."""

from __future__ import annotations

from dataclasses import replace

from ambient.xds.catalogue import Catalogue
from ambient.xds.codec import ADDRESS_TYPE
from ambient.xds.messages import DeltaRequest, DeltaResponse, decode_response, encode_response
from ambient.xds.server import DeltaStream
from tests.support.delta import Peer
from tests.support.discovery import rich_service, rich_workload, simple_workload

A, B = simple_workload("a"), simple_workload("b")


def on_demand(catalogue: Catalogue, node: str = "") -> DeltaStream:
    stream = DeltaStream(catalogue, node=node)
    stream.receive(DeltaRequest(type_url=ADDRESS_TYPE, subscribe=("*",), unsubscribe=("*",)))
    take(stream)
    return stream


def take(stream: DeltaStream) -> DeltaResponse | None:
    """The next response, acknowledged."""
    response = stream.pull()
    if response is not None:
        stream.receive(DeltaRequest(type_url=response.type_url, nonce=response.nonce))
    return response


def ask(stream: DeltaStream, *names: str) -> tuple[set[str], set[str]]:
    stream.receive(DeltaRequest(type_url=ADDRESS_TYPE, subscribe=names))
    response = take(stream)
    assert response is not None
    return {r.name for r in response.resources}, set(response.removed)


def test_star_given_and_taken_back_is_not_wildcard() -> None:
    catalogue = Catalogue()
    catalogue.update([A, B], 1)
    stream = on_demand(catalogue)
    assert stream.pull() is None


def test_an_on_demand_client_finds_by_name_and_by_alias_and_hears_of_misses() -> None:
    workload, service = rich_workload(), rich_service()
    catalogue = Catalogue()
    catalogue.update([A, workload, service], 1)
    stream = on_demand(catalogue)
    assert ask(stream, A.uid) == ({A.uid}, set())
    assert ask(stream, "net-1/10.0.0.1") == ({workload.uid}, set())
    assert ask(stream, "net-1/10.96.0.1") == ({service.key}, set())
    assert ask(stream, "/10.9.9.9") == (set(), {"/10.9.9.9"})


def test_an_on_demand_client_gets_aliases_and_a_wildcard_client_does_not() -> None:
    catalogue = Catalogue()
    catalogue.update([rich_workload()], 1)
    stream = on_demand(catalogue)
    stream.receive(DeltaRequest(type_url=ADDRESS_TYPE, subscribe=("net-1/10.0.0.1",)))
    response = stream.pull()
    assert response is not None
    assert decode_response(encode_response(response)).resources[0].aliases == ("net-1/10.0.0.1", "net-1/fd00::1")
    (first, _) = Peer(catalogue).settle()
    assert all(not resource.aliases for resource in first.resources)


def test_a_subscribed_service_brings_its_workloads_and_the_node_its_own() -> None:
    service = rich_service()
    member = simple_workload("member", services={service.key: ()}, node="n2")
    catalogue = Catalogue()
    catalogue.update([A, simple_workload("far", node="n2"), member, service], 1)
    stream = DeltaStream(catalogue, node="n1")
    stream.receive(DeltaRequest(type_url=ADDRESS_TYPE, subscribe=("*",), unsubscribe=("*",)))
    first = take(stream)
    assert first is not None
    assert {r.name for r in first.resources} == {A.uid}
    assert ask(stream, service.key) == ({service.key, member.uid}, set())


def test_an_on_demand_client_hears_of_changes_of_what_it_has_and_of_nothing_else() -> None:
    catalogue = Catalogue()
    catalogue.update([A, B], 1)
    stream = on_demand(catalogue)
    ask(stream, A.uid)
    catalogue.update([A, replace(B, node="n3")], 2)
    assert take(stream) is None
    catalogue.update([replace(A, node="n3"), B], 3)
    response = take(stream)
    assert response is not None
    assert [r.name for r in response.resources] == [A.uid]
    catalogue.update([B], 4)
    response = take(stream)
    assert response is not None
    assert response.removed == (A.uid,)


def test_a_name_that_was_given_back_is_no_longer_pushed() -> None:
    catalogue = Catalogue()
    catalogue.update([A], 1)
    stream = on_demand(catalogue)
    ask(stream, A.uid)
    stream.receive(DeltaRequest(type_url=ADDRESS_TYPE, unsubscribe=(A.uid,)))
    catalogue.update([replace(A, node="n3")], 2)
    assert take(stream) is None


def test_asking_again_for_a_name_sends_it_again() -> None:
    catalogue = Catalogue()
    catalogue.update([A], 1)
    stream = on_demand(catalogue)
    assert ask(stream, A.uid) == ({A.uid}, set())
    assert ask(stream, A.uid) == ({A.uid}, set())
