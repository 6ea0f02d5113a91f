"""`ambient join` itself: join, run the two parts, tell how the workload is, leave.

Ends by a signal (then the workload leaves the mesh and goes on without it) or when the control plane says that it is
no member any more (then its network stays closed: what was captured is not let out behind everybody's back).
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from ambient.ca.ticket import Ticket
from ambient.errors import InvalidInput, MeshError, Refused, Unavailable
from ambient.join import member as membership
from ambient.join.client import JoinClient
from ambient.join.health import Health
from ambient.join.machine import Machine
from ambient.join.member import Member
from ambient.join.netns import address_of
from ambient.lab import cgroup, launch
from ambient.lab.supervisor import STABLE_S, backoff_s
from ambient.model.address import parse_ip
from ambient.waking import woken

_STARTED: Final = ("agent", "ztunnel")
_ENDS_S: Final = 20.0
_LOOK_S: Final = 0.2

log = logging.getLogger("ambient.join")


async def admitted(machine: Machine, ticket: Ticket | None, wanted: str) -> Member:
    """The membership of an earlier run, or one for this ticket. Raises InvalidInput, Refused, Unavailable."""
    known = membership.load(machine.state)
    if known is not None:
        log.info("goes on as %s/%s", known.namespace, known.entry)
        return known
    if ticket is None:
        raise InvalidInput("ticket", why="this machine is no member yet: give it a ticket (ambient ticket create)")
    address = str(await asyncio.to_thread(address_of, machine.netns, wanted))
    async with JoinClient(ticket.control, ticket.root) as client:
        parts = {"namespace": ticket.namespace, "group": ticket.group, "number": ticket.number}
        answer = await client.call("Join", {**parts, "secret": ticket.secret, "address": address})
    made = Member.of(ticket, address, answer)
    made.save(machine.state)
    log.info("joined as %s/%s, identity %s", made.namespace, made.entry, made.service_account)
    return made


class Running:
    """A member at work."""

    def __init__(self, machine: Machine, member: Member, *, commands: bool) -> None:
        """`commands`: probes that are commands are run."""
        self._machine = machine
        self._member = member
        self._news = asyncio.Event()
        self._health = Health(member.probe, parse_ip(member.address), self._news.set, commands=commands)
        self._children: dict[str, asyncio.subprocess.Process] = {}

    async def run(self) -> None:
        """Until cancelled: then leave. Raises Refused when we are no member any more."""
        for part in _STARTED:  # of a run that was killed
            await asyncio.to_thread(cgroup.remove, cgroup.place(self._machine.group(part)))
        self._machine.prepare(self._member)
        tasks = [asyncio.create_task(self._keep(part)) for part in _STARTED]
        tasks.append(asyncio.create_task(self._health.run()))
        try:
            await self._tell()
        except asyncio.CancelledError:
            await self._leave()
            raise
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self._end()
            if membership.load(self._machine.state) is None and self._machine.released():
                await self._clean()

    async def _keep(self, part: str) -> None:
        """Run a part for ever."""
        loop = asyncio.get_running_loop()
        failures = 0
        while True:
            began = loop.time()
            placed = launch.in_cgroup(cgroup.path(self._machine.group(part)), self._machine.commands()[part])
            environment = self._machine.environment(part, self._member)
            child = await asyncio.create_subprocess_exec(*placed, env=environment, start_new_session=True)
            self._children[part] = child
            code = await child.wait()
            failures = 1 if loop.time() - began > STABLE_S else failures + 1
            log.warning("%s ended with %s", part, code)
            await asyncio.sleep(backoff_s(failures))

    async def _tell(self) -> None:
        """Give signs of life: often enough, and at once when something changed."""
        member, told = self._member, None
        async with JoinClient(member.control, member.root, token=member.token("join")) as client:
            while True:
                self._news.clear()
                state = (self._health.why, self._machine.captured(member))
                try:
                    await client.call("Beat", {"why": state[0], "captured": state[1]})
                    told = state
                except Unavailable as error:
                    told = None  # and a pause, however different it is by now from what was said before
                    log.warning("%s", error)
                except Refused as error:
                    if "changed meanwhile" not in error.why:
                        membership.forget(self._machine.state)
                        raise
                await self._until_news(told, member.beat_s)

    async def _until_news(self, told: tuple[str, bool] | None, pause_s: float) -> None:
        """Until the time is over or what we would say is not what we said."""
        with suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                while (self._health.why, self._machine.captured(self._member)) == told:
                    await woken(self._news, _LOOK_S)
                    # What came and went again would wake us for ever, without a pause in which the time can be over.
                    self._news.clear()
                if told is None:
                    await asyncio.sleep(pause_s)

    async def _leave(self) -> None:
        """Nobody is sent to us any more, then the workload is let out of the mesh."""
        member = self._member
        try:
            async with JoinClient(member.control, member.root, token=member.token("join")) as client:
                await client.call("Leave", {})
        except MeshError as error:
            log.warning("cannot say that we leave: %s; the control plane will see it by our silence", error)
        membership.forget(self._machine.state)
        self._machine.release(member)
        for _ in range(int(_ENDS_S / _LOOK_S)):
            if self._machine.released():
                break
            await asyncio.sleep(_LOOK_S)
        log.info("left")

    async def _end(self) -> None:
        """Both parts, and all they started."""
        for child in self._children.values():
            with suppress(ProcessLookupError):
                child.send_signal(signal.SIGTERM)
        with suppress(TimeoutError):
            async with asyncio.timeout(_ENDS_S):
                await asyncio.gather(*(child.wait() for child in self._children.values()))
        for part in _STARTED:
            await asyncio.to_thread(cgroup.remove, cgroup.place(self._machine.group(part)))

    async def _clean(self) -> None:
        """Nothing of us stays on the machine."""
        machine = self._machine
        environment = machine.environment("agent", self._member)
        child = await asyncio.create_subprocess_exec(*machine.commands()["agent"], "--uninstall", env=environment)
        await child.wait()
        shutil.rmtree(machine.folder, ignore_errors=True)
        for part in _STARTED:
            shutil.rmtree(machine.state / part, ignore_errors=True)


@contextmanager
def only_one(machine: Machine) -> Iterator[None]:
    """Hold the workload's lock; raises Unavailable when another process has it."""
    machine.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    descriptor = os.open(machine.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError:
        raise Unavailable("join", machine.name, "another `ambient join` runs for this workload") from None
    finally:
        os.close(descriptor)


@contextmanager
def _in_group(machine: Machine) -> Iterator[None]:
    """Be in a control group of our own, by which our probes are told from others' packets; then where we were."""
    before = Path("/proc/self/cgroup").read_text().rpartition("0::/")[2].splitlines()
    home = cgroup.place(before[0] if before else "")
    group = cgroup.path(machine.group("join"))
    (group / "cgroup.procs").write_text(str(os.getpid()))
    try:
        yield
    finally:
        with suppress(OSError, MeshError):
            (home / "cgroup.procs").write_text(str(os.getpid()))
            cgroup.remove(group.parent)


async def serve(machine: Machine, ticket: Ticket | None, wanted: str, *, commands: bool) -> None:
    """Join and stay until SIGTERM or SIGINT; `commands`: also run probes that are commands. Raises MeshError."""
    task = asyncio.current_task()
    assert task is not None
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    with only_one(machine), _in_group(machine), suppress(asyncio.CancelledError):
        await Running(machine, await admitted(machine, ticket, wanted), commands=commands).run()
