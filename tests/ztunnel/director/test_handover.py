"""Two directors in one process: what one has becomes the other's, and who did not get ready has taken nothing."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from ambient.xds.codec import ADDRESS_TYPE, TYPES, Record, Resource, encode, name_of, type_of
from ambient.xds.messages import DeltaResponse
from tests.support.director_world import ALICE, ALICE_WORKLOAD, BOB_WORKLOAD, DENY, IDENTITY, WEB, World, scenario
from tests.support.fake_worker import own_netns, same_file
from tests.support.waiting import eventually
from ztunnel.director.custody import Secret
from ztunnel.director.director import Director
from ztunnel.director.handover import Estate, Heir
from ztunnel.director.itself import UID
from ztunnel.director.memfd import content, sealed
from ztunnel.director.policies import PodInfo
from ztunnel.director.snapshot import SnapshotFile
from ztunnel.ipc import messages as ipc


@asynccontextmanager
async def leaving(world: World) -> AsyncIterator[Director]:
    """A director with one pod, its certificate, and a worker that serves it."""
    world.known(ALICE_WORKLOAD)
    async with world.director() as one:
        worker = world.worker()
        await worker.hears(ipc.Settings)
        assert await one.add(ALICE, own_netns()) == ""
        await eventually(lambda: bool(one.certificates.current()))
        one.estate.listen()
        yield one


async def nothing() -> None:
    """There is nothing to write."""


def told(one: Director, *records: Record) -> None:
    """What its control plane says of a sudden, all there is."""
    for url in TYPES:
        resources = tuple(
            Resource(url, name_of(record), "2", encode(record).body) for record in records if type_of(record) == url
        )
        batch, _ = one.discovery.core.receive(DeltaResponse(type_url=url, nonce="1", resources=resources))
        one.discovery.apply(batch)


def coming(world: World) -> Heir:
    heir = Heir(world.config.handover_socket)
    assert heir.connect()
    return heir


def close(heir: Heir) -> None:
    for _, fds in heir.pods:
        for fd in fds:
            os.close(fd)
    for secret in heir.secrets.values():
        os.close(secret.fd)
    heir.close()


@scenario
async def test_the_next_ztunnel_gets_the_same_open_sockets_and_the_keys(world: World) -> None:
    async with leaving(world) as one:
        heir = coming(world)
        await heir.ask()
        ((pod, fds),) = heir.pods
        assert (pod.uid, pod.name, pod.identity) == (ALICE.uid, ALICE.name, IDENTITY)
        ((_, held),) = one.pods.listening()
        assert len(fds) == len(held)
        assert all(same_file(left, right) for left, right in zip(fds, held, strict=True))
        ((_, ours),) = one.certificates.current()
        assert content(heir.secrets[IDENTITY].fd) == content(ours.fd)
        close(heir)


@scenario
async def test_what_discovery_told_a_moment_ago_is_on_disk_before_the_next_ztunnel_reads_it(world: World) -> None:
    async with leaving(world) as one:
        told(one, ALICE_WORKLOAD, BOB_WORKLOAD, WEB, DENY)
        heir = coming(world)
        await heir.written()
        second = World(Path(world.config.run_dir).parent)
        two = Director(second.config, second.authority.sign)
        await two.discovery.restore()
        assert {one.name for one in two.discovery.mesh.workloads()} == {"alice", "bob"}
        assert two.discovery.mesh.counts() == one.discovery.mesh.counts() == (2, 1, 1)
        two.close()
        close(heir)


@scenario
async def test_what_is_known_in_part_does_not_take_the_place_of_a_whole_picture(world: World) -> None:
    async with leaving(world) as one:
        bob = Resource(ADDRESS_TYPE, BOB_WORKLOAD.uid, "2", encode(BOB_WORKLOAD).body)
        batch, _ = one.discovery.core.receive(DeltaResponse(type_url=ADDRESS_TYPE, nonce="1", resources=(bob,)))
        one.discovery.apply(batch)
        heir = coming(world)
        await heir.written()
        assert [found.name for found in SnapshotFile(world.config.state_dir, "Kubernetes/n1").load().records] == [
            "alice"
        ]
        close(heir)


@scenario
async def test_its_own_pod_is_nobody_elses(world: World) -> None:
    async with leaving(world) as one:
        assert await one.pods.add(PodInfo(UID, "ztunnel-a", "ambient-system", "ztunnel"), own_netns()) == ""
        assert [pod.uid for pod, _ in one.pods.listening()] == [ALICE.uid]


@scenario
async def test_another_director_serves_what_it_inherits_with_those_sockets_and_without_the_authority(
    world: World,
) -> None:
    async with leaving(world) as one:
        heir = coming(world)
        await heir.ask()
        second = World(Path(world.config.run_dir).parent / "second")
        async with second.director() as two:
            assert two.inherit(heir) == [ALICE.uid]
            worker = second.worker()
            up = await worker.hears(ipc.PodUp)
            assert up.uid == ALICE.uid
            ((_, held),) = one.pods.listening()
            assert same_file(worker.pods[ALICE.uid][1][1], held[1])
            assert [identity for identity, _ in two.certificates.current()] == [IDENTITY]
            assert not second.authority.asked
            worker.die()
        close(heir)


@scenario
async def test_only_an_heir_that_says_so_has_taken_over(world: World) -> None:
    async with leaving(world) as one:
        assert await one.estate.passed_on(0.0, 5.0) == frozenset()
        heir = coming(world)
        await heir.ask()
        assert one.estate.taken is None
        heir.serving([ALICE.uid])
        assert await one.estate.passed_on(0.0, 5.0) == {ALICE.uid}
        assert one.estate.beside
        close(heir)
        await eventually(lambda: one.estate.taken is None)


@scenario
async def test_one_that_is_told_to_end_waits_for_an_heir_that_is_on_its_way(world: World) -> None:
    async with leaving(world) as one:
        passed_on = asyncio.ensure_future(one.estate.passed_on(20.0, 20.0))
        await asyncio.sleep(0)
        assert not passed_on.done()
        heir = coming(world)
        await heir.ask()
        heir.serving([ALICE.uid])
        assert await passed_on == {ALICE.uid}
        close(heir)


@scenario
async def test_an_heir_that_never_gets_ready_is_not_waited_for_without_end(world: World) -> None:
    async with leaving(world) as one:
        heir = coming(world)
        await eventually(lambda: one.estate._heir is not None)
        assert await one.estate.passed_on(0.0, 0.01) == frozenset()
        close(heir)


@scenario
async def test_when_the_heir_dies_the_one_before_it_can_be_found_again(world: World) -> None:
    async with leaving(world):
        heir = coming(world)
        await heir.ask()
        theirs = Estate(world.config.handover_socket, list, list, nothing)
        theirs.listen()
        theirs.close()
        close(heir)

        def found() -> bool:
            again = Heir(world.config.handover_socket)
            connected = again.connect()
            again.close()
            return connected

        await eventually(found)


@scenario
async def test_where_nobody_was_before_there_is_nothing_to_wait_for(world: World) -> None:
    heir = Heir(world.config.handover_socket)
    assert not heir.connect()
    assert heir.gone.is_set()
    await heir.ask()
    assert not heir.pods


@scenario
async def test_who_has_taken_over_keeps_its_connections_when_the_other_drains(world: World) -> None:
    async with leaving(world) as one:
        worker = world.workers[0]
        stopped: list[str] = []
        one.pods._pods[ALICE.uid].listeners = _Noting(one.pods._pods[ALICE.uid].listeners, stopped)  # type: ignore[assignment]
        assert not one.pods.refuse_new({ALICE.uid})
        one.drain(1.0, {ALICE.uid})
        assert (await worker.hears(ipc.Drain)).handed_over
        assert stopped == []
        one.drain(1.0)
        assert not (await worker.hears(ipc.Drain, 2)).handed_over
        assert stopped == ["stop"]


class _Noting:
    """Listeners that only note what is asked of them."""

    def __init__(self, real: object, said: list[str]) -> None:
        self._real = real
        self._said = said

    def stop(self) -> None:
        self._said.append("stop")

    def __getattr__(self, name: str) -> object:
        return getattr(self._real, name)


def test_without_a_place_for_the_socket_there_is_no_handover_and_no_error(caplog: pytest.LogCaptureFixture) -> None:
    Estate("/proc/none/handover.sock", list, list, nothing).listen()
    assert "no handover" in caplog.text


@scenario
async def test_a_certificate_offered_twice_is_held_once(world: World) -> None:
    async with world.director() as one:
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(2):
            one.certificates.offer({IDENTITY: Secret(sealed("test", b"none"), "", 0.0)})
        assert len(os.listdir("/proc/self/fd")) == before + 1


@scenario
async def test_neither_side_believes_a_process_of_another_user(world: World) -> None:
    async with leaving(world) as one, AsyncExitStack() as stack:
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(os, "geteuid", lambda: os.getuid() + 1)
        stranger = Heir(world.config.handover_socket)
        assert not stranger.connect(), "what listens there is no ztunnel of ours"
        assert stranger.gone.is_set()
        sock = socket.socket(socket.AF_UNIX)
        sock.connect(world.config.handover_socket)
        sock.setblocking(False)
        assert await asyncio.get_running_loop().sock_recv(sock, 1) == b""
        sock.close()
        assert one.estate.taken is None
