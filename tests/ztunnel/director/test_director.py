"""The whole director, without discovery's stream and the agent's socket: real workers' socket, fake workers."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest

from ambient.errors import Unavailable
from ambient.model.outcome import Forward, NoRoute, Passthrough, Refuse
from ambient.model.workload import TunnelProtocol
from ambient.xds.client import Batch
from ambient.xds.codec import ADDRESS_TYPE, AUTHORIZATION_TYPE
from ambient.xds.messages import DeltaResponse
from tests.support.director_world import (
    ALICE,
    ALICE_WORKLOAD,
    BOB_WORKLOAD,
    DENY,
    IDENTITY,
    WEB,
    World,
    scenario,
)
from tests.support.fake_worker import own_netns, same_file
from tests.support.waiting import eventually
from ztunnel.director.dumping import config_dump
from ztunnel.director.questions import PATIENCE_S
from ztunnel.ipc import messages as ipc


@scenario
async def test_a_pod_is_acknowledged_when_every_worker_serves_it_with_the_same_sockets(world: World) -> None:
    world.known(ALICE_WORKLOAD)
    async with world.director() as director:
        one, two = world.worker(0, 1), world.worker(1, 2)
        await eventually(lambda: len(list(director.crew)) == 2)
        assert await director.add(ALICE, own_netns()) == ""
        ups = [worker.pods["uid-a"] for worker in (one, two)]
        assert all(same_file(left, right) for left, right in zip(ups[0][1], ups[1][1], strict=True))
        assert ups[0][0].identity == IDENTITY
        assert ups[0][0].policy.known
        assert ups[0][0].policy.addresses == ("10.0.0.1",)
        assert ups[0][0].policy.own.workload == "alice-owner"
        assert ups[0][0].policy.baggage == (
            "k8s.cluster.name=Kubernetes,k8s.namespace.name=shop,k8s.pod.name=alice-owner,"
            "service.name=alice-app,service.version=v1"
        )


@scenario
async def test_settings_come_first_and_certificates_before_anybody_asks(world: World) -> None:
    world.known(ALICE_WORKLOAD)
    async with world.director() as director:
        worker = world.worker()
        await worker.hears(ipc.Settings)
        assert isinstance(worker.heard[0], ipc.Settings)
        await director.add(ALICE, own_netns())
        certificate = await worker.hears(ipc.Certificate)
        assert certificate.identity == IDENTITY
        assert certificate.roots == world.authority.root_pem
        assert worker.certificates[IDENTITY].count(b"BEGIN") == 2
        late = world.worker(1, 2)
        await late.hears(ipc.Certificate)
        await late.hears(ipc.PodUp)


@scenario
async def test_without_a_worker_a_pod_is_refused_and_served_when_one_comes(world: World) -> None:
    world.known(ALICE_WORKLOAD)
    async with world.director() as director:
        adding = asyncio.ensure_future(director.add(ALICE, own_netns()))
        await eventually(lambda: director.pods.pending() == ["uid-a"])
        world.worker()
        assert await adding == ""
        assert director.pods.up("uid-a")


@scenario
async def test_a_workers_error_is_the_answer_and_the_pod_stays_pending_until_a_retry_works(world: World) -> None:
    async with world.director() as director:
        worker = world.worker(error="no room")
        await eventually(lambda: list(director.crew))
        assert await director.add(ALICE, own_netns()) == "no room"
        assert director.pods.pending() == ["uid-a"]
        assert await director.retry() == []
        worker.error = ""
        assert await director.retry() == ["uid-a"]
        assert director.pods.pending() == []


@scenario
async def test_the_same_pod_again_changes_nothing_and_is_acknowledged(world: World) -> None:
    async with world.director() as director:
        worker = world.worker()
        await eventually(lambda: list(director.crew))
        for _ in range(2):
            assert await director.add(ALICE, own_netns()) == ""
        assert len(worker.all(ipc.PodUp)) == 1


@scenario
async def test_a_removed_pod_goes_from_every_worker(world: World) -> None:
    async with world.director() as director:
        worker = world.worker()
        await eventually(lambda: list(director.crew))
        await director.add(ALICE, own_netns())
        director.remove("uid-a")
        assert (await worker.hears(ipc.PodDown)).uid == "uid-a"
        assert director.served() == set()
        director.remove("uid-a")


@scenario
async def test_a_policy_change_reaches_only_whom_it_concerns_and_only_when_it_is_one(world: World) -> None:
    world.known(ALICE_WORKLOAD)
    async with world.director() as director:
        worker = world.worker()
        await eventually(lambda: list(director.crew))
        await director.add(ALICE, own_netns())
        director.discovery.apply(Batch(AUTHORIZATION_TYPE, (replace(DENY, namespace="elsewhere"),)))
        director.discovery.apply(Batch(AUTHORIZATION_TYPE, (DENY,)))
        update = await worker.hears(ipc.PodUpdate)
        assert update.policy.policies == (DENY,)
        director.discovery.apply(Batch(ADDRESS_TYPE, (BOB_WORKLOAD,)))
        named = replace(ALICE_WORKLOAD, authorization_policies=("shop/late",))
        director.discovery.apply(Batch(ADDRESS_TYPE, (named,)))
        assert (await worker.hears(ipc.PodUpdate, 2)).policy.missing == ("shop/late",)
        assert len(worker.all(ipc.PodUpdate)) == 2


@scenario
async def test_part_of_the_first_answer_lets_nobody_in(world: World) -> None:
    async with world.director() as director:
        worker = world.worker()
        await eventually(lambda: list(director.crew))
        director.discovery.core.receive(DeltaResponse(type_url=ADDRESS_TYPE, nonce="1"))
        director.discovery.apply(Batch(ADDRESS_TYPE, (ALICE_WORKLOAD,), first=True))
        await director.add(ALICE, own_netns())
        policy = worker.pods["uid-a"][0].policy
        assert not policy.known, "the policies of its namespace are not here yet"
        director.discovery.core.receive(DeltaResponse(type_url=AUTHORIZATION_TYPE, nonce="2"))
        director.discovery.apply(Batch(AUTHORIZATION_TYPE, (DENY,), first=True))
        update = await worker.hears(ipc.PodUpdate)
        assert update.policy.known
        assert update.policy.policies == (DENY,)


@scenario
async def test_a_pod_that_leaves_takes_its_routes_along(world: World) -> None:
    world.known(ALICE_WORKLOAD)
    async with world.director() as director:
        worker = world.worker()
        await eventually(lambda: list(director.crew))
        await director.add(ALICE, own_netns())
        bob = ip_address("10.0.1.1")
        worker.say(ipc.RouteAsk(uid="uid-a", ip=bob, port=80))
        assert isinstance((await worker.hears(ipc.RouteAnswer)).plan, Passthrough)
        director.remove("uid-a")
        assert (await worker.hears(ipc.Forget)).routes == (("uid-a", bob, 80),)


@scenario
async def test_a_pod_that_discovery_does_not_know_is_not_known(world: World) -> None:
    world.known(BOB_WORKLOAD)
    async with world.director() as director:
        worker = world.worker()
        await eventually(lambda: list(director.crew))
        await director.add(ALICE, own_netns())
        assert not worker.pods["uid-a"][0].policy.known
        director.discovery.apply(Batch(ADDRESS_TYPE, (ALICE_WORKLOAD,)))
        assert (await worker.hears(ipc.PodUpdate)).policy.known


@scenario
async def test_a_route_is_answered_and_forgotten_exactly_when_it_changes(world: World) -> None:
    world.known(ALICE_WORKLOAD, BOB_WORKLOAD, WEB)
    async with world.director() as director:
        worker = world.worker()
        await eventually(lambda: list(director.crew))
        await director.add(ALICE, own_netns())
        service = ip_address("10.96.0.1")
        worker.say(ipc.RouteAsk(uid="uid-a", ip=service, port=80))
        answer = await worker.hears(ipc.RouteAnswer)
        assert isinstance(answer.plan, Forward)
        assert answer.plan.hops[0].authority == "10.0.1.1:8080"
        director.discovery.apply(Batch(ADDRESS_TYPE, (replace(WEB, hostname="other", addresses=()),)))
        director.discovery.apply(Batch(AUTHORIZATION_TYPE, (DENY,)))
        await worker.hears(ipc.PodUpdate)
        assert worker.all(ipc.Forget) == []
        director.discovery.apply(Batch(ADDRESS_TYPE, (), (("workload", BOB_WORKLOAD.uid),)))
        forget = await worker.hears(ipc.Forget)
        assert forget.routes == (("uid-a", service, 80),)
        assert not forget.names
        assert not forget.everything


@scenario
async def test_peers_and_names_are_answered_and_forgotten(world: World) -> None:
    world.known(ALICE_WORKLOAD, BOB_WORKLOAD, WEB)
    async with world.director() as director:
        worker = world.worker()
        await eventually(lambda: list(director.crew))
        await director.add(ALICE, own_netns())
        worker.say(ipc.PeerAsk(ip=ip_address("10.0.1.1")))
        worker.say(ipc.NameAsk(uid="uid-a", name="web", qtype="A"))
        assert (await worker.hears(ipc.PeerAnswer)).labels.pod == "bob"
        answer = await worker.hears(ipc.NameAnswer)
        assert (answer.known, answer.addresses) == (True, ("10.96.0.1",))
        director.discovery.apply(Batch(ADDRESS_TYPE, (replace(BOB_WORKLOAD, workload_name="new"),)))
        assert (await worker.hears(ipc.Forget)).peers == (ip_address("10.0.1.1"),)
        director.discovery.apply(Batch(ADDRESS_TYPE, (), (("service", WEB.key),)))
        await eventually(lambda: any(forget.names for forget in worker.all(ipc.Forget)))


@scenario
async def test_before_discovery_has_spoken_nothing_is_passed_through(world: World) -> None:
    async with world.director() as director:
        worker = world.worker()
        await eventually(lambda: list(director.crew))
        await director.add(ALICE, own_netns())
        worker.say(ipc.RouteAsk(uid="uid-a", ip=ip_address("10.0.1.1"), port=80))
        worker.say(ipc.Counters(series=(), other={"seen": 1}))
        await eventually(lambda: director.tally.other())
        assert worker.all(ipc.RouteAnswer) == []


@scenario
async def test_a_question_that_waited_too_long_is_refused_and_not_remembered(world: World) -> None:
    async with world.director() as director:
        worker = world.worker()
        await eventually(lambda: list(director.crew))
        loop = asyncio.get_running_loop()
        start, real = loop.time(), loop.time
        worker.say(ipc.RouteAsk(uid="uid-a", ip=ip_address("10.0.1.1"), port=80))
        worker.say(ipc.Counters(series=(), other={"seen": 1}))
        await eventually(lambda: director.tally.other())
        loop.time = lambda: real() + PATIENCE_S + 1  # type: ignore[method-assign]
        answer = await worker.hears(ipc.RouteAnswer)
        assert loop.time() - start > PATIENCE_S
        assert isinstance(answer.plan, Refuse)
        assert answer.plan.reason is NoRoute.UNKNOWN_SOURCE
        assert (await worker.hears(ipc.Forget)).routes == (("uid-a", ip_address("10.0.1.1"), 80),)


@scenario
async def test_a_restarted_director_takes_sockets_back_and_binds_nothing(world: World) -> None:
    world.known(ALICE_WORKLOAD, DENY)
    worker = None
    async with world.director() as director:
        worker = world.worker()
        await eventually(lambda: list(director.crew))
        await director.add(ALICE, own_netns())
        sockets = worker.pods["uid-a"][1]
    await eventually(lambda: worker.closed)
    worker.heard.clear()

    def refuse(_netns: int) -> object:
        raise AssertionError("bound again")

    async with world.director() as second:
        second.pods._rules = replace(second.pods._rules, bind=refuse)  # type: ignore[arg-type]
        worker.connect()
        await eventually(lambda: second.pods.up("uid-a"))
        # The director has sent both by now, and the worker may still have to read them.
        assert (await worker.hears(ipc.Forget)).everything
        assert (await worker.hears(ipc.PodUpdate)).policy.policies == (DENY,)
        assert worker.all(ipc.PodUp) == []
        assert await second.add(ALICE, own_netns()) == ""
        newcomer = world.worker(1, 2)
        await newcomer.hears(ipc.PodUp)
        given = newcomer.pods["uid-a"][1]
        assert all(same_file(left, right) for left, right in zip(sockets[1:], given[1:], strict=True))
        second.remove("uid-a")
        await worker.hears(ipc.PodDown)


@scenario
async def test_a_restarted_director_that_knows_nothing_yet_leaves_policies_alone(world: World) -> None:
    world.known(ALICE_WORKLOAD)
    async with world.director() as director:
        worker = world.worker()
        await eventually(lambda: list(director.crew))
        await director.add(ALICE, own_netns())
    await eventually(lambda: worker.closed)
    worker.heard.clear()
    world.forget()
    async with world.director() as second:
        worker.connect()
        await eventually(lambda: second.pods.up("uid-a"))
        assert worker.all(ipc.PodUpdate) == []
        assert worker.all(ipc.Forget) == []


@scenario
async def test_a_pod_only_a_worker_remembers_goes_when_the_agent_does_not_name_it(world: World) -> None:
    async with world.director() as director:
        worker = world.worker()
        await eventually(lambda: list(director.crew))
        await director.add(ALICE, own_netns())
    await eventually(lambda: worker.closed)
    async with world.director() as second:
        worker.connect()
        await eventually(lambda: "uid-a" in second.served())
        second.remove("uid-a")
        await worker.hears(ipc.PodDown)


@scenario
async def test_a_new_process_on_a_slot_sends_the_old_one_away(world: World) -> None:
    async with world.director() as director:
        old = world.worker(0, 1)
        await eventually(lambda: list(director.crew))
        world.worker(0, 2)
        await old.hears(ipc.Drain)
        await eventually(lambda: [worker.pid for worker in director.crew] == [2])


@scenario
async def test_a_failing_ca_is_told_and_a_recovered_one_is_used(world: World) -> None:
    world.authority.failure = Unavailable("no certificate", "ca", "down")
    async with world.director() as director:
        worker = world.worker()
        await eventually(lambda: list(director.crew))
        await director.add(ALICE, own_netns())
        assert "down" in (await worker.hears(ipc.CertificateFailed)).why
        late = world.worker(1, 2)
        await late.hears(ipc.CertificateFailed)
        world.authority.failure = None
        director.certificates.hurry()
        await worker.hears(ipc.Certificate)


@scenario
async def test_a_changed_trust_domain_gives_the_pod_another_identity(world: World) -> None:
    world.known(ALICE_WORKLOAD)
    async with world.director() as director:
        worker = world.worker()
        await eventually(lambda: list(director.crew))
        await director.add(ALICE, own_netns())
        director.discovery.apply(Batch(ADDRESS_TYPE, (replace(ALICE_WORKLOAD, trust_domain="other.example"),)))
        assert (await worker.hears(ipc.PodUp, 2)).identity == "spiffe://other.example/ns/shop/sa/alice-sa"


@scenario
async def test_the_nodes_workloads_have_certificates_ahead_of_their_pods_until_the_last_is_gone(world: World) -> None:
    native = replace(ALICE_WORKLOAD, tunnel_protocol=TunnelProtocol.NONE, native_tunnel=True)
    plain = replace(ALICE_WORKLOAD, uid="p", service_account="plain", tunnel_protocol=TunnelProtocol.NONE)
    twin = replace(native, uid="twin")
    async with world.director() as director:
        director.snapshot_done()
        director.discovery.apply(Batch(ADDRESS_TYPE, (native, twin, plain, BOB_WORKLOAD)))
        await eventually(lambda: [identity for identity, _ in director.certificates.held()] == [IDENTITY])
        director.discovery.apply(Batch(ADDRESS_TYPE, gone=(("workload", twin.uid),)))
        assert len(director.certificates.show()) == 1
        director.discovery.apply(Batch(ADDRESS_TYPE, gone=(("workload", native.uid),)))
        assert not director.certificates.show()


@scenario
async def test_the_dump_is_complete_while_a_worker_is_silent(world: World) -> None:
    world.known(ALICE_WORKLOAD, BOB_WORKLOAD, WEB, DENY)
    async with world.director() as director:
        world.worker()
        await eventually(lambda: list(director.crew))
        await director.add(ALICE, own_netns())
        await eventually(director.certificates.current)
        director.reports.wait_s = 0.01
        text = await config_dump(director)
        for part in (
            b"alice-owner",
            b"web.shop.svc.cluster.local",
            b'"Deny"',
            b'"Available"',
            b'"Up"',
            IDENTITY.encode(),
        ):
            assert part in text
        assert b"PRIVATE" not in text


@pytest.mark.parametrize("kind", [ipc.PodGone(uid="x"), ipc.Hello(pid=1, slot=0)])
def test_messages_that_need_no_answer_are_taken(kind: ipc.ToDirector, tmp_path: Path) -> None:
    async def body() -> None:
        world = World(tmp_path)
        async with world.director() as director:
            worker = world.worker()
            await eventually(lambda: list(director.crew))
            worker.say(kind)
            worker.say(ipc.Counters(series=(), other={"seen": 1}))
            await eventually(lambda: director.tally.other() == {"seen": 1})
            worker.die()

    asyncio.run(body())
