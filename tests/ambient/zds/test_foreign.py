"""Our agent drives a ztunnel that is not ours, octet by octet; and the stand-ins see what is wrong."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ambient.agent.ztunnels import Ztunnels
from ambient.zds import codec
from ambient.zds.codec import AddWorkload
from tests.support import zds_foreign as foreign
from tests.support.agent_fakes import nobody
from tests.support.fake_worker import own_netns
from tests.support.waiting import eventually
from tests.support.zds_foreign import IstioAgent, RustZtunnel

WEB = AddWorkload("4f7c2c1e-0a0b-4c0d-8e0f-101112131415", "web-7d9c8b6f5-x2x4z", "shop", "seller")
DB = AddWorkload("6a5b4c3d-0a0b-4c0d-8e0f-101112131415", "db-0", "shop", "keeper")
IN = asyncio.to_thread


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (codec.encode_hello(codec.Hello()), foreign.HELLO),
        (codec.encode_request(WEB), foreign.add(WEB.uid, WEB.name, WEB.namespace, WEB.service_account)),
        (codec.encode_request(codec.DelWorkload(DB.uid)), foreign.delete(DB.uid)),
        (codec.encode_request(codec.KeepWorkload(DB.uid)), foreign.keep(DB.uid)),
        (codec.encode_request(codec.SnapshotSent()), foreign.SNAPSHOT_SENT),
        (codec.encode_ack(codec.Ack()), foreign.ACKED),
        (codec.encode_ack(codec.Ack("failed to bind: " + "x" * 200)), foreign.refusal("failed to bind: " + "x" * 200)),
    ],
)
def test_what_we_write_is_what_they_write(ours: bytes, theirs: bytes) -> None:
    assert ours == theirs


@contextlib.asynccontextmanager
async def our_agent(folder: Path) -> AsyncIterator[tuple[Ztunnels, Path, int]]:
    path, netns = folder / "ztunnel.sock", own_netns()
    ours = Ztunnels(nobody, lambda _peer: None)
    serving = asyncio.create_task(ours.serve(path))
    try:
        await eventually(path.exists)
        yield ours, path, netns
    finally:
        serving.cancel()
        await asyncio.wait({serving})
        os.close(netns)


def test_their_ztunnel_gets_a_snapshot_then_what_changes_one_request_at_a_time(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with our_agent(tmp_path) as (ours, path, netns):
            ours.add(WEB, netns)
            ours.keep(DB.uid)
            theirs = await IN(RustZtunnel, path)
            await IN(theirs.answer, 3)
            assert theirs.heard == [("add", WEB.uid), ("keep", DB.uid), ("snapshot", "")]
            assert theirs.served == {WEB.uid: (WEB.name, "shop", "seller")}
            await ours.served(WEB.uid)
            removing = asyncio.ensure_future(ours.remove(WEB.uid))
            await IN(theirs.answer, 1)
            await removing
            assert not theirs.served
            theirs.close()

    asyncio.run(scenario())


def test_a_pod_their_ztunnel_cannot_serve_is_offered_until_it_can(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with our_agent(tmp_path) as (ours, path, netns):
            ours.add(WEB, netns)
            theirs = await IN(RustZtunnel, path, {WEB.uid})
            await IN(theirs.answer, 4)
            assert theirs.heard == [("add", WEB.uid), ("snapshot", ""), ("add", WEB.uid), ("add", WEB.uid)]
            assert ours.pending == {WEB.uid: "failed to bind: Address already in use"}
            theirs.refuse.clear()
            await IN(theirs.answer, 1)
            await ours.served(WEB.uid)
            assert ours.settled
            theirs.close()

    asyncio.run(scenario())


def test_in_an_upgrade_the_new_one_gets_everything_and_both_hear_of_deletions(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with our_agent(tmp_path) as (ours, path, netns):
            ours.add(WEB, netns)
            old = await IN(RustZtunnel, path)
            await IN(old.answer, 2)
            new = await IN(RustZtunnel, path)
            await IN(new.answer, 2)
            ours.add(DB, netns)
            await IN(new.answer, 1)
            await ours.served(DB.uid)
            removing = asyncio.ensure_future(ours.remove(WEB.uid))
            await asyncio.gather(IN(old.answer, 1), IN(new.answer, 1))
            await removing
            assert old.heard == [("add", WEB.uid), ("snapshot", ""), ("del", WEB.uid)]
            assert new.heard == [("add", WEB.uid), ("snapshot", ""), ("add", DB.uid), ("del", WEB.uid)]
            old.close()
            await eventually(lambda: ours.count == 1)
            assert ours.settled
            new.close()

    asyncio.run(scenario())


def test_a_ztunnel_that_comes_back_gets_a_whole_snapshot_again(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with our_agent(tmp_path) as (ours, path, netns):
            ours.add(WEB, netns)
            first = await IN(RustZtunnel, path)
            await IN(first.answer, 2)
            first.close()
            await eventually(lambda: ours.count == 0)
            ours.add(DB, netns)
            await ours.remove(WEB.uid)
            again = await IN(RustZtunnel, path)
            again.served.update(first.served)
            await IN(again.answer, 2)
            assert again.served == {DB.uid: (DB.name, "shop", "keeper")}
            again.close()

    asyncio.run(scenario())


@pytest.mark.parametrize("said", [foreign.ACKED, foreign.HELLO, b"\xff"])
def test_a_ztunnel_that_speaks_unasked_is_hung_up_on(tmp_path: Path, said: bytes) -> None:
    async def scenario() -> None:
        async with our_agent(tmp_path) as (ours, path, _netns):
            theirs = await IN(RustZtunnel, path)
            await IN(theirs.answer, 1)
            await eventually(lambda: ours.settled)
            theirs.say(said)
            assert await IN(theirs.hung_up)
            theirs.close()

    asyncio.run(scenario())


def _two_at_once(sock: socket.socket, netns: int) -> None:
    for name in ("a", "b"):
        socket.send_fds(sock, [foreign.add(name, name, "ns", "sa")], [netns])


def _no_namespace(sock: socket.socket, _netns: int) -> None:
    read, write = os.pipe()
    socket.send_fds(sock, [foreign.add("u", "n", "ns", "sa")], [read])
    os.close(read)
    os.close(write)


def _descriptor_with_deletion(sock: socket.socket, netns: int) -> None:
    socket.send_fds(sock, [foreign.delete("u")], [netns])


def _keep_after_snapshot(sock: socket.socket, _netns: int) -> None:
    sock.send(foreign.SNAPSHOT_SENT)
    assert sock.recv(1024) == foreign.ACKED
    sock.send(foreign.keep("u"))


@pytest.mark.parametrize("wrong", [_two_at_once, _no_namespace, _descriptor_with_deletion, _keep_after_snapshot])
def test_a_wrong_agent_fails_at_their_ztunnel(wrong: Callable[[socket.socket, int], None], tmp_path: Path) -> None:
    path, netns = tmp_path / "ztunnel.sock", own_netns()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener, ThreadPoolExecutor() as beside:
        listener.bind(str(path))
        listener.listen()
        theirs = RustZtunnel(path)
        sock, _ = listener.accept()
        with sock:
            assert sock.recv(1024) == foreign.HELLO
            sending = beside.submit(wrong, sock, netns)
            if wrong is _keep_after_snapshot:
                theirs.answer_one()
            sending.result()
            with pytest.raises(AssertionError):
                theirs.answer_one()
        theirs.close()
    os.close(netns)


@pytest.mark.parametrize("said", [b"\x0a\x00", foreign.refusal("no") + b"\x12\x00", b"\x08\x01"])
def test_a_wrong_ztunnel_fails_at_their_agent(said: bytes, tmp_path: Path) -> None:
    agent = IstioAgent(tmp_path / "ztunnel.sock")
    theirs = RustZtunnel(tmp_path / "ztunnel.sock")
    told = agent.accept()
    theirs.say(said)
    if said == foreign.ACKED:
        # Right as an answer, but nothing was asked.
        with pytest.raises(AssertionError, match="unasked"):
            told.ask(foreign.SNAPSHOT_SENT)
    else:
        with pytest.raises(AssertionError):
            told.silent()
    for one in (theirs, told, agent):
        one.close()
