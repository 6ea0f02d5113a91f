"""The on-demand client, on our server and on one that behaves as istiod; and both kinds of client on the latter."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

import pytest

from ambient.model.workload import NetworkAddress, Port, Service
from ambient.xds.catalogue import Catalogue
from ambient.xds.client import STAND_IN_VERSION, DeltaClient
from ambient.xds.codec import ADDRESS_TYPE, AUTHORIZATION_TYPE, Record, name_of
from ambient.xds.messages import DeltaRequest, DeltaResponse
from tests.support.delta import NODE, Peer
from tests.support.discovery import rich_service, simple_policy, simple_workload
from tests.support.istiod import Istiod, IstiodStream

WEB = "ns/web.example"
SERVICE = Service(
    name="web",
    namespace="ns",
    hostname="web.example",
    addresses=(NetworkAddress("", ip_address("10.96.0.1")),),
    ports=(Port(80, 8080),),
)
HERE = simple_workload("here", addresses=(ip_address("10.0.0.1"),))
BEHIND = simple_workload("behind", node="n2", addresses=(ip_address("10.0.1.1"),), services={WEB: ()})
FAR = simple_workload("far", node="n2", addresses=(ip_address("10.0.1.2"),))
POLICY = simple_policy("p")
ALL: tuple[Record, ...] = (SERVICE, HERE, BEHIND, FAR, POLICY)


class OnDemand(Peer):
    """An on-demand client; `istiod` None: on our server."""

    def __init__(self, istiod: Istiod | None = None, catalogue: Catalogue | None = None, **how: bool) -> None:
        self.istiod = istiod
        super().__init__(catalogue or Catalogue(), DeltaClient(NODE, **{"on_demand": True, **how}))

    def connect(self, catalogue: Catalogue) -> None:
        super().connect(catalogue)
        if self.istiod is not None:
            self.stream = IstiodStream(self.istiod)  # type: ignore[assignment]
        self.client.on_request = self.answers.append
        self.settle()

    def client_step(self) -> bool:
        moved = super().client_step()
        if moved:
            self.client.acted()
        return moved

    def ask(self, *names: str) -> list[DeltaResponse]:
        self.client.want(names)
        return self.settle()


@pytest.fixture(params=["ours", "istiod"])
def peer(request: pytest.FixtureRequest) -> OnDemand:
    if request.param == "istiod":
        istiod = Istiod()
        istiod.put(*ALL)
        return OnDemand(istiod)
    catalogue = Catalogue()
    catalogue.update(ALL, 1)
    return OnDemand(catalogue=catalogue)


def test_the_first_request_gives_the_star_back_and_policies_stay_wildcard() -> None:
    authorization, address = DeltaClient(NODE, on_demand=True).open()
    assert address == DeltaRequest(type_url=ADDRESS_TYPE, node=NODE, subscribe=("*",), unsubscribe=("*",))
    assert authorization == DeltaRequest(type_url=AUTHORIZATION_TYPE, node=NODE)


def test_unasked_come_the_own_nodes_workloads_and_every_policy_and_nothing_else(peer: OnDemand) -> None:
    assert set(peer.view) == {HERE.uid, POLICY.key}
    assert peer.client.complete


def test_a_service_is_found_by_its_address_and_brings_what_is_behind_it(peer: OnDemand) -> None:
    peer.ask("/10.96.0.1")
    assert peer.client.decided("/10.96.0.1")
    assert set(peer.view) == {HERE.uid, POLICY.key, WEB, BEHIND.uid}


def test_a_workload_is_found_by_address_and_by_uid(peer: OnDemand) -> None:
    peer.ask("/10.0.1.2")
    assert peer.view[FAR.uid] == FAR
    peer.ask(BEHIND.uid)
    assert peer.view[BEHIND.uid] == BEHIND


def test_what_is_not_there_is_answered_too(peer: OnDemand) -> None:
    peer.ask("/10.9.9.9")
    assert peer.client.decided("/10.9.9.9")
    assert peer.ask("/10.9.9.9") == []


def test_a_miss_is_asked_anew_after_a_while_and_then_found(peer: OnDemand) -> None:
    peer.ask("/10.9.9.9")
    assert peer.client.age() == ()
    assert peer.client.age() == ("/10.9.9.9",)
    late = replace(FAR, uid="Kubernetes//Pod/ns/late", name="late", addresses=(ip_address("10.9.9.9"),))
    if peer.istiod is not None:
        peer.istiod.put(late)
    else:
        peer.stream._catalogue.update([*ALL, late], 2)
    peer.ask("/10.9.9.9")
    assert peer.view[late.uid] == late


def test_an_answer_is_decided_only_when_it_was_acted_upon() -> None:
    client = DeltaClient(NODE, on_demand=True)
    decided: list[str] = []
    client.on_decided = lambda: decided.append("called")
    client.want(["/10.9.9.9"])
    client.receive(DeltaResponse(type_url=ADDRESS_TYPE, nonce="1", removed=("/10.9.9.9",)))
    assert not client.decided("/10.9.9.9")
    client.acted()
    assert client.decided("/10.9.9.9")
    assert decided == ["called"]


def test_what_was_asked_while_no_stream_was_open_is_asked_on_the_next(peer: OnDemand) -> None:
    peer.client.on_request = None
    peer.client.want(["/10.0.1.2"])
    assert FAR.uid not in peer.view
    peer.connect(peer.stream._catalogue if peer.istiod is None else Catalogue())
    assert peer.view[FAR.uid] == FAR


def test_a_new_stream_brings_only_what_changed_meanwhile_and_follows_what_is_had(peer: OnDemand) -> None:
    peer.ask("/10.96.0.1", WEB)
    changed = replace(BEHIND, service_account="other")
    catalogue = Catalogue()
    catalogue.update([SERVICE, HERE, changed, FAR, POLICY], 2)
    if peer.istiod is not None:
        peer.istiod.put(changed)
    before = dict(peer.view)
    peer.connect(catalogue)
    assert {name for name in peer.view if peer.view[name] != before[name]} == {BEHIND.uid}


def follower(istiod: Istiod) -> OnDemand:
    return OnDemand(istiod, on_demand=False)


def test_a_wildcard_client_of_istiod_continues_without_a_full_resend_and_hears_what_is_gone() -> None:
    istiod = Istiod()
    istiod.put(*ALL)
    peer = follower(istiod)
    assert set(peer.view) == {name_of(record) for record in ALL}
    istiod.drop(FAR.uid)
    istiod.put(replace(BEHIND, service_account="other"))
    peer.stream = IstiodStream(istiod)  # type: ignore[assignment]
    peer.answers = list(peer.client.open())
    crossed = {response.type_url: response for response in peer.settle()}
    assert [one.name for one in crossed[ADDRESS_TYPE].resources] == [BEHIND.uid]
    assert crossed[ADDRESS_TYPE].removed == (FAR.uid,)
    assert [one.name for one in crossed[AUTHORIZATION_TYPE].resources] == [POLICY.key]
    assert FAR.uid not in peer.view


def test_of_a_server_that_never_resends_the_good_part_is_applied_after_a_while() -> None:
    istiod = Istiod(broken={FAR.uid})
    istiod.put(*ALL)
    peer = follower(istiod)
    stream = peer.stream
    assert isinstance(stream, IstiodStream)
    assert [nack.partition(":")[0] for nack in stream.nacks] == [FAR.uid]
    assert HERE.uid not in peer.view
    assert not peer.client.complete
    assert peer.client.holding
    (batch,) = peer.client.release()
    assert {name_of(record) for record in batch.put} == {HERE.uid, BEHIND.uid, WEB}
    assert peer.client.complete
    assert not peer.client.holding
    assert peer.client.versions()[ADDRESS_TYPE][FAR.uid] == STAND_IN_VERSION


def test_what_istiod_repairs_before_that_is_applied_with_the_rest() -> None:
    istiod = Istiod(broken={FAR.uid})
    istiod.put(*ALL)
    peer = follower(istiod)
    istiod.broken.clear()
    peer.stream.changed({FAR.uid})  # type: ignore[attr-defined]
    peer.settle()
    assert set(peer.view) == {name_of(record) for record in ALL}
    assert not peer.client.holding


def test_a_change_pushed_by_istiod_is_taken_and_acknowledged() -> None:
    istiod = Istiod()
    istiod.put(*ALL)
    peer = follower(istiod)
    stream = peer.stream
    assert isinstance(stream, IstiodStream)
    acks = stream.acks
    stream.changed(istiod.put(replace(SERVICE, canonical=True)))
    peer.settle()
    assert peer.view[WEB] == replace(SERVICE, canonical=True)
    stream.changed(istiod.drop(WEB))
    peer.settle()
    assert WEB not in peer.view
    assert stream.acks == acks + 2


def test_versions_that_are_no_numbers_come_back_as_they_were() -> None:
    client = DeltaClient(NODE)
    names = {"": "", "hex": "00ff00ff00ff00ff", "upper": "00FF00FF00FF00FF", "long": "v" * 40, "under": "0_1" * 5 + "0"}
    records = {kind: simple_workload(kind or "none") for kind in names}
    for kind, version in names.items():
        resource = replace(Istiod({"x": records[kind]}).resources(ADDRESS_TYPE)["x"], version=version)
        client.receive(DeltaResponse(type_url=ADDRESS_TYPE, nonce="1", resources=(resource,)))
    assert client.versions()[ADDRESS_TYPE] == {records[kind].uid: version for kind, version in names.items()}
    assert rich_service().key not in client.versions()[ADDRESS_TYPE]
