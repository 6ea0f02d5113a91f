"""Discovery against a real control plane: followed, kept on disk, continued, and kept when that is gone."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ambient.model.mesh import Changes
from ambient.xds.codec import ADDRESS_TYPE, AUTHORIZATION_TYPE, TYPES, Resource
from ambient.xds.messages import DeltaResponse, ztunnel_node
from ambient.xds.steps import finish
from ambient.xds.subscribe import StreamState
from tests.support.control import ControlBench
from tests.support.waiting import eventually, until
from ztunnel.director.discovery import Discovery, server_settings
from ztunnel.director.snapshot import Snapshot, SnapshotFile, write

NAMESPACE = """
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
"""
POD = """
apiVersion: v1
kind: Pod
metadata: {{name: {0}, namespace: shop}}
spec: {{nodeName: n1, serviceAccountName: web, containers: [{{name: c, image: none, command: [sleep]}}]}}
status: {{phase: Running, podIPs: [{{ip: 10.0.1.{1}}}]}}
---
"""


class Follower:
    def __init__(self, control: ControlBench, state: Path, **how: bool) -> None:
        settings = control.client()
        self.changes: list[Changes] = []
        self.states: list[StreamState] = []
        self.failures = 0
        self.discovery = Discovery(
            ztunnel_node("n1"),
            server_settings(
                f"https://{settings.target}", str(settings.root), str(settings.token), settings.hostname, "Kubernetes"
            ),
            SnapshotFile(str(state), "Kubernetes/n1"),
            on_change=lambda changes, _more: self.changes.append(changes),
            on_state=self.states.append,
            on_message=lambda _url, _size: None,
            on_save_failed=self._failed,
            debounce_s=0.01,
            **how,
        )

    def _failed(self) -> None:
        self.failures += 1

    def names(self) -> set[str]:
        return {workload.name for workload in self.discovery.mesh.workloads()}


@asynccontextmanager
async def following(control: ControlBench, state: Path) -> AsyncIterator[Follower]:
    one = Follower(control, state)
    await one.discovery.restore()
    running = asyncio.ensure_future(one.discovery.run())
    try:
        yield one
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await one.discovery.save()


def test_it_follows_and_a_later_process_starts_from_disk_and_hears_what_was_removed(tmp_path: Path) -> None:
    async def scenario() -> None:
        file = tmp_path / "state" / "discovery.snapshot"
        async with ControlBench(tmp_path) as control:
            control.apply(NAMESPACE + POD.format("one", 1) + POD.format("two", 2))
            async with following(control, tmp_path / "state") as first:
                await eventually(lambda: first.names() == {"one", "two"} and first.discovery.settled)
                await eventually(file.exists)
            control.folder.delete(["Pod/shop/one"])
            async with following(control, tmp_path / "state") as second:
                assert second.discovery.settled
                assert second.names() == {"one", "two"}
                await eventually(lambda: second.names() == {"two"} and second.states[-1].state == "synced")
            async with following(control, tmp_path / "state") as third:
                await eventually(lambda: any(state.state == "synced" for state in third.states))
                assert third.names() == {"two"}
        async with following(control, tmp_path / "state") as alone:
            await eventually(lambda: any(state.state == "disconnected" for state in alone.states))
            assert alone.names() == {"two"}

    asyncio.run(scenario())


def test_an_empty_mesh_is_a_complete_picture_too(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlBench(tmp_path) as control, following(control, tmp_path / "state") as one:
            await eventually(lambda: one.discovery.settled and one.changes)
            assert one.names() == set()

    asyncio.run(scenario())


def test_a_disk_that_is_full_is_counted_and_the_mesh_goes_on(tmp_path: Path) -> None:
    async def scenario() -> None:
        state = tmp_path / "state"
        state.mkdir()
        (state / "discovery.new").symlink_to("/dev/full")
        async with ControlBench(tmp_path) as control:
            control.apply(NAMESPACE + POD.format("one", 1))
            async with following(control, state) as one:
                await eventually(lambda: one.failures > 0)
                await eventually(lambda: one.names() == {"one"})

    asyncio.run(scenario())


class SlowDisk(SnapshotFile):
    """Its disk takes as long as it likes; `asked` is when it was asked, on the monotonic clock."""

    asked = 0.0

    def commit(self) -> None:
        self.asked = time.monotonic()
        until(lambda: time.monotonic() > self.asked + 0.05)
        super().commit()


def test_waiting_for_a_slow_disk_does_not_make_the_next_saving_late(tmp_path: Path) -> None:
    async def scenario() -> None:
        file = SlowDisk(str(tmp_path), "Kubernetes/n1")
        one = Discovery(
            ztunnel_node("n1"),
            None,
            file,
            on_change=lambda _changes, _more: None,
            on_state=lambda _state: None,
            on_message=lambda _url, _size: None,
            on_save_failed=lambda: None,
        )
        assert await one.save() == 0.0
        assert not file.asked, "there is nothing to save"
        for url in TYPES:
            one.apply(one.core.receive(DeltaResponse(type_url=url, nonce="1"))[0])
        begun = time.monotonic()
        worked_s = await one.save()
        assert begun + worked_s <= file.asked
        assert file.load() is not None

    asyncio.run(scenario())


def damaged(data: bytes) -> bytes:
    return data[:-40] + bytes((data[-40] ^ 1,)) + data[-39:]


def cut_short(data: bytes) -> bytes:
    return data[: len(data) // 2]


def of_an_older_format(data: bytes) -> bytes:
    return b"ambient discovery\n" + data.partition(b"\n")[2]


def of_another_node(_data: bytes) -> bytes:
    with tempfile.TemporaryFile() as file:
        finish(write(file, Snapshot((), {}), "Kubernetes/n2"))
        file.seek(0)
        return file.read()


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (damaged, "it is damaged"),
        (cut_short, "it is damaged"),
        (of_an_older_format, "format 1, not 2"),
        (of_another_node, "it is of 'Kubernetes/n2'"),
    ],
)
def test_a_snapshot_that_cannot_be_used_is_named_and_started_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, change: Callable[[bytes], bytes], why: str
) -> None:
    async def scenario() -> None:
        file = tmp_path / "state" / "discovery.snapshot"
        async with ControlBench(tmp_path) as control:
            control.apply(NAMESPACE + "".join(POD.format(f"pod{number}", number) for number in range(1, 60)))
            async with following(control, tmp_path / "state") as first:
                await eventually(lambda: len(first.names()) == 59 and file.exists())
            file.write_bytes(change(file.read_bytes()))
            one = Follower(control, tmp_path / "state")
            await one.discovery.restore()
            assert not one.discovery.settled
            assert one.names() == set()
            assert any(str(file) in message and why in message for message in caplog.messages)
            assert one.discovery.core.versions() == {ADDRESS_TYPE: {}, AUTHORIZATION_TYPE: {}}
            async with following(control, tmp_path / "state") as two:
                await eventually(lambda: len(two.names()) == 59)

    asyncio.run(scenario())


@pytest.mark.parametrize("lax", [False, True])
def test_a_policy_that_is_not_understood_closes_unless_laxness_is_asked_for(tmp_path: Path, lax: bool) -> None:
    async def scenario() -> None:
        async with ControlBench(tmp_path) as control:
            one = Follower(control, tmp_path / "state", lax=lax)
            bad = Resource(AUTHORIZATION_TYPE, "shop/new", "1", b"\xff")
            batch, _ = one.discovery.core.receive(
                DeltaResponse(type_url=AUTHORIZATION_TYPE, nonce="1", resources=(bad,))
            )
            one.discovery.apply(batch)
            assert (one.discovery.mesh.policy("shop/new") is None) is lax

    asyncio.run(scenario())
