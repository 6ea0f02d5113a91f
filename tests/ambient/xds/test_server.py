"""The server of delta discovery against our client and against raw requests, in odd orders."""

from __future__ import annotations

import random
from contextlib import nullcontext
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ambient.errors import Refused
from ambient.model.workload import Workload
from ambient.xds.catalogue import Catalogue
from ambient.xds.codec import ADDRESS_TYPE, AUTHORIZATION_TYPE, Record, name_of
from ambient.xds.messages import (
    DeltaRequest,
)
from ambient.xds.server import MOST_NAMES, DeltaStream
from tests.support.delta import Peer
from tests.support.discovery import simple_policy, simple_workload

A, B = simple_workload("a"), simple_workload("b")
P, Q = simple_policy("p"), simple_policy("q")


def test_a_new_client_gets_everything_and_an_empty_answer_per_type_counts() -> None:
    catalogue = Catalogue()
    catalogue.update([], 1)
    peer = Peer(catalogue)
    assert len(peer.settle()) == 2
    assert peer.client.complete
    catalogue.update([A, P], 5)
    peer.settle()
    assert peer.view == {A.uid: A, P.key: P}
    assert peer.stream.acked == 5


def test_only_what_changed_is_pushed() -> None:
    catalogue = Catalogue()
    catalogue.update([A, B, P], 1)
    peer = Peer(catalogue)
    peer.settle()
    changed = replace(B, node="n2")
    catalogue.update([A, changed, P], 2)
    (response,) = peer.settle()
    assert [r.name for r in response.resources] == [B.uid]
    catalogue.update([A], 3)
    crossed = peer.settle()
    assert sorted(name for r in crossed for name in r.removed) == sorted([B.uid, P.key])
    assert peer.view == {A.uid: A}


def test_nothing_is_pushed_when_nothing_changed_but_the_revision_is_acknowledged() -> None:
    catalogue = Catalogue()
    catalogue.update([A], 1)
    peer = Peer(catalogue)
    peer.settle()
    catalogue.update([A], 2)
    assert peer.stream.pull() is None
    assert peer.stream.acked == 2


def test_a_reconnected_client_gets_only_the_difference() -> None:
    catalogue = Catalogue()
    catalogue.update([A, B, P], 1)
    peer = Peer(catalogue)
    peer.settle()
    catalogue.update([replace(A, node="n2"), P, Q], 2)
    peer.connect(catalogue)
    crossed = {r.type_url: r for r in peer.settle() if r.resources or r.removed}
    assert [r.name for r in crossed[ADDRESS_TYPE].resources] == [A.uid]
    assert crossed[ADDRESS_TYPE].removed == (B.uid,)
    assert [r.name for r in crossed[AUTHORIZATION_TYPE].resources] == [Q.key]
    assert peer.stream.acked == 2


def test_a_server_that_has_read_nothing_yet_takes_nothing_from_a_client_that_comes_back() -> None:
    catalogue = Catalogue()
    catalogue.update([A, P], 1)
    peer = Peer(catalogue)
    peer.settle()
    restarted = Catalogue()
    peer.connect(restarted)
    assert peer.settle() == []
    assert peer.view == {A.uid: A, P.key: P}
    assert not peer.stream.settled
    restarted.update([A, P], 1)
    assert not any(response.removed for response in peer.settle())
    assert peer.view == {A.uid: A, P.key: P}
    assert peer.stream.acked == 1


def test_at_most_one_response_per_type_is_unanswered_and_the_next_has_all_changes_since() -> None:
    catalogue = Catalogue()
    catalogue.update([A], 1)
    peer = Peer(catalogue)
    while peer.answer_step() or peer.server_step():
        pass
    assert len(peer.arriving) == 2
    for revision in range(2, 50):
        catalogue.update([replace(A, node=f"n{revision}")], revision)
        assert peer.stream.pull() is None
    assert peer.stream.acked == 0
    crossed = peer.settle()
    assert len(crossed) == 3
    assert peer.view[A.uid] == replace(A, node="n49")
    assert peer.stream.acked == 49


def test_a_stale_nonce_acknowledges_nothing() -> None:
    catalogue = Catalogue()
    catalogue.update([A], 4)
    stream = DeltaStream(catalogue)
    stream.receive(DeltaRequest(type_url=ADDRESS_TYPE))
    response = stream.pull()
    assert response is not None
    stream.receive(DeltaRequest(type_url=ADDRESS_TYPE, nonce="old"))
    stream.receive(DeltaRequest(type_url=ADDRESS_TYPE))
    assert stream.pull() is None
    assert stream.acked < 4
    assert not stream.settled
    stream.receive(DeltaRequest(type_url=ADDRESS_TYPE, nonce=response.nonce))
    assert stream.pull() is None
    assert stream.acked == 4
    assert stream.settled


def test_a_change_of_content_within_a_revision_takes_the_acknowledgement_back() -> None:
    catalogue = Catalogue()
    catalogue.update([A], 4)
    peer = Peer(catalogue)
    peer.settle()
    assert peer.stream.acked == 4
    catalogue.update([replace(A, node="n2")], 4)
    assert peer.stream.acked == 3
    peer.settle()
    assert peer.stream.acked == 4


def test_policies_come_before_the_workloads_that_name_them_and_go_after_them() -> None:
    catalogue = Catalogue()
    catalogue.update([A], 1)
    peer = Peer(catalogue)
    peer.settle()
    catalogue.update([replace(A, authorization_policies=(P.key,)), P], 2)
    assert [r.type_url for r in peer.settle()] == [AUTHORIZATION_TYPE, ADDRESS_TYPE]
    catalogue.update([A], 3)
    assert peer.server_step()
    assert not peer.server_step()
    assert peer.arriving[0].type_url == ADDRESS_TYPE
    assert peer.stream.acked < 3
    assert [r.removed for r in peer.settle() if r.type_url == AUTHORIZATION_TYPE] == [(P.key,)]
    assert peer.stream.acked == 3


def test_a_workload_waits_for_its_policy_while_an_earlier_response_about_policies_is_unanswered() -> None:
    catalogue = Catalogue()
    catalogue.update([A], 1)
    peer = Peer(catalogue)
    while peer.answer_step() or peer.server_step():
        pass
    policies, addresses = peer.arriving
    assert (policies.type_url, addresses.type_url) == (AUTHORIZATION_TYPE, ADDRESS_TYPE)
    peer.stream.receive(DeltaRequest(type_url=ADDRESS_TYPE, nonce=addresses.nonce))
    catalogue.update([replace(A, authorization_policies=(P.key,)), P], 2)
    assert not peer.server_step()
    catalogue.update([replace(A, node="n2")], 3)
    assert peer.server_step(), "no policy waits any more"
    catalogue.update([replace(A, authorization_policies=(P.key,)), P], 4)
    assert [r.type_url for r in peer.settle()[3:]] == [AUTHORIZATION_TYPE, ADDRESS_TYPE]
    assert peer.stream.acked == 4


def test_workloads_wait_for_all_of_their_policies_when_those_do_not_fit_into_one_response() -> None:
    catalogue = Catalogue()
    catalogue.update([], 1)
    peer = Peer(catalogue)
    peer.stream = DeltaStream(catalogue, node="n1", most_bytes=0)
    peer.settle()
    catalogue.update([replace(A, authorization_policies=(P.key, Q.key)), P, Q], 2)
    assert [r.type_url for r in peer.settle()] == [AUTHORIZATION_TYPE, AUTHORIZATION_TYPE, ADDRESS_TYPE]
    assert peer.stream.acked == 2


def test_a_policy_removed_alone_is_removed_at_once() -> None:
    catalogue = Catalogue()
    catalogue.update([A, P], 1)
    peer = Peer(catalogue)
    peer.settle()
    catalogue.update([A], 2)
    assert [r.removed for r in peer.settle()] == [(P.key,)]


def test_a_policy_that_came_back_before_its_removal_was_sent_is_not_removed() -> None:
    catalogue = Catalogue()
    catalogue.update([replace(A, authorization_policies=(P.key,)), P], 1)
    peer = Peer(catalogue)
    peer.settle()
    catalogue.update([A], 2)
    peer.server_step()
    catalogue.update([A, P], 3)
    peer.settle()
    assert P.key in peer.view
    assert peer.stream.acked == 3


def encode_bad(catalogue: Catalogue, *names: str) -> None:
    """Make resources of the catalogue unreadable to the client."""
    for name in names:
        shelf = catalogue._shelves[ADDRESS_TYPE]
        shelf.resources[name] = replace(shelf.resources[name], body=b"\xff", version="bad")


def test_after_a_refusal_the_good_part_comes_again_without_the_culprit() -> None:
    catalogue = Catalogue()
    catalogue.update([A, B], 1)
    encode_bad(catalogue, A.uid)
    peer = Peer(catalogue)
    peer.settle()
    assert set(peer.view) == {A.uid, B.uid}
    assert (peer.view[B.uid], peer.view[A.uid].refused != "") == (B, True)  # type: ignore[union-attr]
    assert set(peer.stream.nacks) == {A.uid}
    assert peer.stream.acked == 1
    repaired = replace(A, node="n2")
    catalogue.update([repaired, B], 2)
    peer.settle()
    assert peer.view == {A.uid: repaired, B.uid: B}
    assert peer.stream.nacks == {}


def test_a_refused_resource_that_is_deleted_is_no_longer_reported() -> None:
    catalogue = Catalogue()
    catalogue.update([A, B], 1)
    encode_bad(catalogue, A.uid)
    peer = Peer(catalogue)
    peer.settle()
    catalogue.update([B], 2)
    peer.settle()
    assert peer.stream.nacks == {}
    assert peer.stream.acked == 2


def test_a_refusal_of_a_single_resource_is_of_that_one_and_not_repeated() -> None:
    catalogue = Catalogue()
    catalogue.update([A], 1)
    stream = DeltaStream(catalogue)
    stream.receive(DeltaRequest(type_url=ADDRESS_TYPE))
    response = stream.pull()
    assert response is not None
    stream.receive(DeltaRequest(type_url=ADDRESS_TYPE, nonce=response.nonce, error="no idea"))
    assert stream.pull() is None
    assert stream.nacks == {A.uid: "no idea"}


def test_an_unknown_type_is_refused() -> None:
    with pytest.raises(Refused, match="no such type"):
        DeltaStream(Catalogue()).receive(DeltaRequest(type_url="type.googleapis.com/envoy.config.cluster.v3.Cluster"))


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 2**32))
def test_whatever_the_order_of_events_the_client_ends_with_what_the_server_has(seed: int) -> None:
    rng = random.Random(seed)
    catalogue = Catalogue()
    peer = Peer(catalogue)
    pool: list[Record] = [simple_workload(f"w{i}") for i in range(6)] + [simple_policy(f"p{i}") for i in range(4)]
    current: dict[str, Record] = {}
    broken: set[str] = set()
    for revision in range(1, 40):
        event = rng.randrange(7)
        if event < 3:
            record = rng.choice(pool)
            if rng.random() < 0.3:
                current.pop(name_of(record), None)
            else:
                current[name_of(record)] = _touched(record, revision)
            catalogue.update(current.values(), revision)
            broken &= {name for name in broken if name in current and _is_broken(catalogue, name)}
        elif event == 3 and rng.random() < 0.3:
            peer.connect(catalogue)
        elif event == 4 and rng.random() < 0.3:
            victims = [name for name, record in current.items() if isinstance(record, Workload)]
            if victims:
                name = rng.choice(victims)
                current[name] = _touched(current[name], 1000 + revision)
                catalogue.update(current.values(), revision)
                encode_bad(catalogue, name)
                broken.add(name)
        else:
            rng.choice([peer.server_step, peer.client_step, peer.answer_step])()
    peer.settle()
    good = {name: record for name, record in current.items() if name not in broken}
    assert {name: record for name, record in peer.view.items() if name not in broken} == good
    assert peer.stream.settled
    assert set(peer.stream.nacks) == broken


def _touched(record: Record, mark: int) -> Record:
    return replace(record, node=f"n{mark}") if isinstance(record, Workload) else replace(record, dry_run=mark % 2 == 0)


def _is_broken(catalogue: Catalogue, name: str) -> bool:
    return catalogue.resources(ADDRESS_TYPE)[name].version == "bad"


def test_the_first_response_is_whole_and_later_ones_are_cut() -> None:
    catalogue = Catalogue()
    many = [simple_workload(f"w{number}") for number in range(20)]
    catalogue.update(many, 1)
    peer = Peer(catalogue)
    peer.stream = DeltaStream(catalogue, node="n1", most_bytes=300)
    first = [response for response in peer.settle() if response.type_url == ADDRESS_TYPE]
    assert [len(response.resources) for response in first] == [20]
    catalogue.update([replace(one, workload_name="changed") for one in many], 2)
    later = [response for response in peer.settle() if response.type_url == ADDRESS_TYPE]
    assert len(later) > 3
    assert sum(len(response.resources) for response in later) == 20
    assert {record.workload_name for record in peer.view.values()} == {"changed"}  # type: ignore[union-attr]
    assert peer.stream.acked == 2


@pytest.mark.parametrize(("names", "refused"), [(MOST_NAMES, False), (MOST_NAMES + 1, True)])
def test_a_client_may_ask_for_so_many_names_and_no_more(names: int, refused: bool) -> None:
    stream = DeltaStream(Catalogue())
    wanted = DeltaRequest(type_url=ADDRESS_TYPE, subscribe=tuple(f"n{i}" for i in range(names)))
    with pytest.raises(Refused, match="names") if refused else nullcontext():
        stream.receive(wanted)


@pytest.mark.parametrize(("known", "refused"), [(9, False), (11, False), (12, True)])
def test_a_client_may_know_all_that_there_is_and_some_that_is_gone(known: int, refused: bool) -> None:
    catalogue = Catalogue()
    catalogue.update([simple_workload(f"w{number}") for number in range(9)], 1)
    versions = {f"w{number}": "1" for number in range(known)}
    with pytest.raises(Refused, match="names") if refused else nullcontext():
        DeltaStream(catalogue, most_names=1).receive(DeltaRequest(type_url=ADDRESS_TYPE, versions=versions))
