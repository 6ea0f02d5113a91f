"""Who comes and goes is entered off the loop, in order, before it is told anything."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from ambient.agent.host import Kubelet
from ambient.agent.owner_changes import OwnerChanges
from ambient.agent.owners import Owners
from ambient.datapath.layout import Role
from ambient.errors import KernelError
from tests.support.agent_fakes import until


@dataclass
class SlowTable:
    """An owners table as rules have it: each change takes until `go` is set."""

    roles: dict[int, Role] = field(default_factory=dict)
    go: threading.Event = field(default_factory=threading.Event)
    begun: threading.Event = field(default_factory=threading.Event)
    broken: bool = False

    def put(self, cgroup_id: int, role: Role, /) -> None:
        self.begun.set()
        assert self.go.wait(30)
        if self.broken:
            raise KernelError("nftables refuses", "a table")
        self.roles[cgroup_id] = role

    def delete(self, cgroup_id: int, /) -> object:
        return self.roles.pop(cgroup_id, None)

    def items(self) -> Mapping[int, Role]:
        return dict(self.roles)


class Scene:
    """A ztunnel, pid 12, in a control group of its own."""

    def __init__(self, folder: Path) -> None:
        self.table = SlowTable()
        self.group = folder / "mount" / "zt"
        self.group.mkdir(parents=True)
        (self.group / "cgroup.procs").write_text("12\n")
        (folder / "proc" / "12").mkdir(parents=True)
        (folder / "proc" / "12" / "cgroup").write_text("0::/zt\n")
        owners = Owners(self.table, folder / "mount", folder / "proc")
        self.changes = OwnerChanges(owners, Kubelet(None, owners, folder / "mount"))

    @property
    def role(self) -> Role | None:
        return self.table.roles.get(self.group.stat().st_ino)


def test_the_loop_goes_on_while_tables_are_written_and_who_waits_is_told_when_they_are(tmp_path: Path) -> None:
    async def body() -> None:
        scene = Scene(tmp_path)
        admitted = asyncio.create_task(scene.changes.admit_ztunnel(12))
        await until(scene.table.begun.is_set)  # which only a loop that goes on can see
        assert not admitted.done()
        scene.table.go.set()
        await admitted
        assert scene.role is Role.ZTUNNEL
        scene.changes.close()

    asyncio.run(body())


def test_a_ztunnel_that_goes_while_it_is_entered_is_a_former_one_in_the_end(tmp_path: Path) -> None:
    async def body() -> None:
        scene = Scene(tmp_path)
        admitted = asyncio.create_task(scene.changes.admit_ztunnel(12))
        await until(scene.table.begun.is_set)
        (scene.group / "cgroup.procs").write_text("")
        scene.changes.prune()
        scene.table.go.set()
        await admitted
        await scene.changes.look()
        assert scene.role is Role.FORMER_ZTUNNEL
        scene.changes.close()

    asyncio.run(body())


def test_what_cannot_be_written_is_an_error_to_who_waits_and_is_done_by_the_next_look(tmp_path: Path) -> None:
    async def body() -> None:
        scene = Scene(tmp_path)
        scene.table.go.set()
        await scene.changes.admit_ztunnel(12)
        (scene.group / "cgroup.procs").write_text("")
        scene.table.broken = True
        scene.changes.prune()
        with pytest.raises(KernelError):
            await scene.changes.look()
        scene.table.broken = False
        await scene.changes.look()
        assert scene.role is Role.FORMER_ZTUNNEL
        scene.changes.close()

    asyncio.run(body())
