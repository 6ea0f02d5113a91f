"""The policies of a node's pods reach each worker once; what cannot reach it opens nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ambient.xds.client import Batch
from ambient.xds.codec import AUTHORIZATION_TYPE
from tests.support.director_world import ALICE, ALICE_WORKLOAD, DENY, World, scenario
from tests.support.fake_worker import own_netns
from tests.support.waiting import eventually
from ztunnel.ipc import messages as ipc


@scenario
async def test_policies_of_many_pods_travel_once(world: World) -> None:
    """As many pods as a node has with as many policies as a mesh may have were more than a worker is given to read."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ztunnel.ipc.channel.MAX_BACKLOG", 1 << 20)
        pods = [replace(ALICE, uid=f"uid-{n}", name=f"alice-{n}") for n in range(40)]
        uids = [ALICE_WORKLOAD.uid.replace("alice", pod.name) for pod in pods]
        world.known(*(replace(ALICE_WORKLOAD, uid=uid, name=pod.name) for uid, pod in zip(uids, pods, strict=True)))
        async with world.director() as director:
            worker = world.worker()
            await eventually(lambda: list(director.crew))
            for pod in pods:
                await director.add(pod, own_netns())
            many = tuple(replace(DENY, name=f"deny-{n}") for n in range(900))
            director.discovery.apply(Batch(AUTHORIZATION_TYPE, many))
            await worker.hears(ipc.PodUpdate, len(pods))
            assert {len(update.policy.policies) for update in worker.all(ipc.PodUpdate)} == {len(many)}
            assert sum(len(news.put) for news in worker.all(ipc.Policies)) == len(many)
            assert not worker.closed
            worker.hang_up()
            await eventually(lambda: not list(director.crew))
            worker.connect()
            await worker.hears(ipc.PodUpdate, 2 * len(pods))
            assert {len(update.policy.policies) for update in worker.all(ipc.PodUpdate)} == {len(many)}


@scenario
async def test_what_is_too_large_for_a_worker_closes_the_pods_that_need_it_and_nothing_else(world: World) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ztunnel.ipc.channel.MAX_FRAME", 4096)
        world.known(ALICE_WORKLOAD)
        async with world.director() as director:
            worker = world.worker()
            await eventually(lambda: list(director.crew))
            await director.add(ALICE, own_netns())
            large = replace(DENY, name="large" * 1000)
            director.discovery.apply(Batch(AUTHORIZATION_TYPE, (DENY, large)))
            update = await worker.hears(ipc.PodUpdate)
            assert (update.policy.policies, len(update.policy.missing)) == ((DENY,), 1)
            director.discovery.apply(Batch(AUTHORIZATION_TYPE, (), (("authorization", large.key),)))
            assert not (await worker.hears(ipc.PodUpdate, 2)).policy.missing


@scenario
async def test_a_worker_that_is_far_behind_is_told_no_more_policies(world: World) -> None:
    with pytest.MonkeyPatch.context() as patch:
        world.known(ALICE_WORKLOAD)
        async with world.director() as director:
            worker = world.worker()
            await eventually(lambda: list(director.crew))
            await director.add(ALICE, own_netns())
            patch.setattr("ztunnel.director.workers.CROWDED", -1)
            director.discovery.apply(Batch(AUTHORIZATION_TYPE, (DENY,)))
            assert (await worker.hears(ipc.PodUpdate)).policy.missing
            patch.setattr("ztunnel.director.workers.CROWDED", 1 << 20)
            director.discovery.apply(Batch(AUTHORIZATION_TYPE, (replace(DENY, name="another"),)))
            assert not (await worker.hears(ipc.PodUpdate, 2)).policy.missing
            assert len((await worker.hears(ipc.PodUpdate, 2)).policy.policies) == 2
