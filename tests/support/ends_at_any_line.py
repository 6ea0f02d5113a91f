"""An agent's work on one pod, ended (SIGKILL) before any line of it: `python -m tests.support.ends_at_any_line JSON`.

JSON: bpffs ("": rules capture), state (a directory), netns (of the pod), addresses, way ("in" or "out"), every (1: each
line, 5: each fifth of those that an attempt comes to for the first time). To be run in the node's namespace. Every
attempt is a process of its own: one does the work and is killed before a line that none was killed at before, the next
starts from what it left, brings the pod in and out by turns, and says what is wrong then. Lines are those of the
modules that hold the steps, found by running them: whoever adds a step adds its lines. A line of JSON tells what was
tried and was wrong.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from types import FrameType
from typing import Any

from ambient.agent import apply, journal, kernel, rule_kernel
from ambient.agent.apply import Applier
from ambient.agent.enrol import PodTarget
from ambient.agent.journal import Journal
from ambient.agent.kernel import Kernel, NodeKernel
from ambient.agent.locate import ByName
from ambient.agent.rule_kernel import RuleKernel
from ambient.agent.rule_owners import RuleOwners
from ambient.agent.sweep import compare
from ambient.datapath import exchange, holding, maps, nft, pod_net, programs
from ambient.datapath.hooks import HOOKS
from ambient.datapath.layout import Flag
from ambient.datapath.maps import Maps
from ambient.netns import entered
from ambient.zds.codec import AddWorkload
from tests.support.capture_world import run

STEPS = (apply, journal, kernel, exchange, holding, maps, pod_net, programs, rule_kernel, nft)
"""Modules whose lines count."""
_FILES = frozenset(str(module.__file__) for module in STEPS)

Line = tuple[str, int]


class Served:
    """A ztunnel that serves whatever it is given."""

    def add(self, pod: AddWorkload, netns_fd: int) -> None:
        pass

    def keep(self, uid: str) -> None:
        pass

    async def served(self, uid: str) -> None:
        pass

    async def remove(self, uid: str) -> None:
        pass


@dataclass(frozen=True)
class Scene:
    """`bpffs` None: rules capture."""

    bpffs: Path | None
    state: Path
    netns: str
    addresses: tuple[str, ...]
    way: str

    @property
    def pod(self) -> PodTarget:
        addresses = tuple(ip_address(text) for text in self.addresses)
        return PodTarget(uid="uid", namespace="shop", name="pod", service_account="seller", addresses=addresses)


class Agent:
    """The parts of an agent that work on pods."""

    def __init__(self, scene: Scene) -> None:
        where = ByName(scene.netns)
        self.kernel: Kernel
        if scene.bpffs is None:
            owners = RuleOwners(scene.state.parent / "owners.json", None)
            known = {entry.pod.uid: entry for entry in Journal(scene.state)}
            self.kernel = RuleKernel(where, "auto", scene.netns, owners, known)
        else:
            self.kernel = NodeKernel(scene.bpffs, Maps.open(scene.bpffs), where, "auto")
        self.journal = Journal(scene.state)
        self.applier = Applier(
            self.kernel,
            self.journal,
            Served(),
            lambda uid, state: None,
            boot=Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
            clock=lambda: 1.0,
            threads=ThreadPoolExecutor(1),
            drain_s=5.0,
            linger_s=0.0,
        )

    def sweep(self) -> None:
        """What is nobody's goes, as the agent's own sweep has it."""
        found = compare(self.journal, (), (), self.kernel.attached(), self.kernel.rows())
        for uid in found.orphans:
            self.kernel.detach(uid)
        for ip in found.stray_rows:
            self.kernel.delete_row(ip)


def work(scene: Scene) -> None:
    agent = Agent(scene)
    step = agent.applier.enrol(scene.pod) if scene.way == "in" else agent.applier.release("uid")
    asyncio.run(step)


def take_over(scene: Scene, *, wanted: bool) -> list[str]:
    """Start as an agent does after one that died; what is wrong when it is through."""
    agent = Agent(scene)

    async def go_on() -> None:
        for entry in list(agent.journal):
            await agent.applier.resume(entry)
        if wanted:
            await agent.applier.enrol(scene.pod)
        else:
            await agent.applier.release("uid")

    asyncio.run(go_on())
    agent.sweep()
    return wrong_in(scene, agent) if wanted else wrong_out(scene, agent)


def wrong_in(scene: Scene, agent: Agent) -> list[str]:
    rows = agent.kernel.rows()
    entry = agent.journal.get("uid")
    found = {
        "rows": {str(ip) for ip in rows} == {*scene.addresses},
        "capture": all(Flag.CAPTURE_OUT | Flag.CAPTURE_IN in row.flags and row.host_ifindex for row in rows.values()),
        "programs": attached(scene, agent) == {"uid": True},
        "journal": entry is not None and entry.since_unix > 0 and entry.undo == {"accept_local": "0"},
        "routes": rules(scene) == 2,
    }
    return [what for what, right in found.items() if not right]


def wrong_out(scene: Scene, agent: Agent) -> list[str]:
    with entered(os.open(scene.netns, os.O_RDONLY)):
        tables = run("ip", "route", "show", "table", "all") + run("ip", "-6", "route", "show", "table", "all")
        accept = Path("/proc/sys/net/ipv4/conf/lo/accept_local").read_text().strip()
    found = {
        "rows": agent.kernel.rows() == {},
        "programs": attached(scene, agent) == {},
        "journal": [path.name for path in scene.state.iterdir()] == [],
        "routes": rules(scene) == 0 and "table 100" not in tables and accept == "0",
    }
    return [what for what, right in found.items() if not right]


def attached(scene: Scene, agent: Agent) -> dict[str, bool]:
    """Of each pod that has any of what captures, whether it is whole."""
    if scene.bpffs is None:
        with entered(os.open(scene.netns, os.O_RDONLY)):
            there = nft.is_there(os.open("/proc/thread-self/ns/net", os.O_RDONLY))
        assert there == bool(agent.kernel.attached())
        return dict(agent.kernel.attached())
    wanted = {hook.program for hook in HOOKS}
    return {
        uid: {one.program for one in on if one.alive} == wanted for uid, on in programs.attached(scene.bpffs).items()
    }


def rules(scene: Scene) -> int:
    with entered(os.open(scene.netns, os.O_RDONLY)):
        return (run("ip", "rule") + run("ip", "-6", "rule")).count("lookup 100")


def child(body: Callable[[], None]) -> tuple[int, bytes]:
    """Run in a process of its own; how it ended (negative: by that signal) and what it wrote."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        os.dup2(writer, 1)
        try:
            body()
        except BaseException:
            traceback.print_exc(file=sys.stdout)
        sys.stdout.flush()
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as pipe:
        said = pipe.read()
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), said


def traced(body: Callable[[], None], spent: set[Line], every_nth: int, pipe: int) -> None:
    """Run until the n-th line that is not spent: those lines are told, and the process is no more."""
    new: list[Line] = []

    def local(frame: FrameType, event: str, argument: Any) -> Any:
        line = (os.path.basename(frame.f_code.co_filename), frame.f_lineno)
        if event == "line" and line not in spent and line not in new:
            new.append(line)
            if len(new) == every_nth:
                os.write(pipe, json.dumps(new).encode())
                os.kill(os.getpid(), signal.SIGKILL)
        return local

    def every(frame: FrameType, event: str, argument: Any) -> Any:
        return local if frame.f_code.co_filename in _FILES else None

    threading.settrace(every)
    sys.settrace(every)
    body()


def main(argument: str) -> int:
    raw = json.loads(argument)
    bpffs = Path(raw["bpffs"]) if raw["bpffs"] else None
    scene = Scene(bpffs, Path(raw["state"]), raw["netns"], tuple(raw["addresses"]), raw["way"])
    spent: set[Line] = set()
    wrong: list[str] = []
    ends = 0
    through = False
    while not through:
        if scene.way == "out":
            child(lambda: asyncio.run(Agent(scene).applier.enrol(scene.pod)))
        ended, said = child(lambda: traced(lambda: work(scene), spent, raw["every"], 1))
        through = ended == 0
        lines = [(str(name), int(number)) for name, number in json.loads(said)] if not through else []
        wanted = ends % 2 == 0
        _, answer = child(lambda: print(json.dumps(take_over(scene, wanted=wanted))))  # noqa: B023
        if answer.strip() != b"[]":
            wrong.append(f"before {lines[-1:]}, {'in' if wanted else 'out'}: {answer.decode()}")
        if wanted:
            child(lambda: asyncio.run(Agent(scene).applier.release("uid")))
        spent.update(lines)
        ends += 1
    print(json.dumps({"ends": ends, "lines": len(spent), "files": sorted({name for name, _ in spent}), "wrong": wrong}))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
