"""One container of a pod: its process, its restarts, its probes.

Runs as one task per container; what it knows is in `ContainerState`, which the pod reports. A kubelet that was
restarted finds the process by the mark file and goes on with it.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from ambient.errors import MeshError
from ambient.kube.objects import Container, Probe
from ambient.lab import cgroup
from ambient.lab.kubelet.probe import Verdict, attempt
from ambient.lab.process import Process, adopt, saved_mark, start
from ambient.lab.settings import read_json
from ambient.model.address import IpAddress

FIRST_BACKOFF_S: Final = 0.5
MAX_BACKOFF_S: Final = 30.0
STABLE_S: Final = 60.0
"""A process that ran this long starts the back-off from the beginning."""


@dataclass(frozen=True, slots=True)
class ContainerState:
    """`exit_code` is of the last process that ended; `ended` when no other will follow it."""

    running: bool = False
    started: bool = False
    ready: bool = False
    ended: bool = False
    restarts: int = 0
    exit_code: int | None = None
    pid: int = 0
    reason: str = ""

    def raw(self, name: str) -> dict[str, Any]:
        """As in status.containerStatuses."""
        if self.running:
            state: dict[str, Any] = {"running": {"pid": self.pid}}
        elif self.ended:
            state = {"terminated": {"exitCode": self.exit_code, "reason": self.reason}}
        else:
            state = {"waiting": {"reason": self.reason or "ContainerCreating"}}
        raw = {
            "name": name,
            "ready": self.ready,
            "started": self.started,
            "restartCount": self.restarts,
            "state": state,
        }
        if self.restarts:
            raw["lastState"] = {"terminated": {"exitCode": self.exit_code}}
        return raw


@dataclass(frozen=True, slots=True)
class Work:
    """What to run and where its traces go."""

    container: Container
    argv: Sequence[str]
    env: Mapping[str, str]
    cgroup: Path
    log: Path
    mark: Path
    ip: IpAddress | None
    restart_policy: str
    grace_s: float


def backoff_s(restarts: int) -> float:
    """Seconds to wait before restart number `restarts` (1 = the first, which is at once)."""
    if restarts <= 1:
        return 0.0
    return min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2.0 ** min(restarts - 2, 10))


def restarts_again(policy: str, exit_code: int | None) -> bool:
    """Kubernetes' restartPolicy; an unknown exit code counts as a failure."""
    return policy == "Always" or (policy == "OnFailure" and exit_code != 0)


class ContainerRunner:
    """Keeps one container running until cancelled (its processes are the pod's to end)."""

    def __init__(self, work: Work, changed: Callable[[], None]) -> None:
        self.state = ContainerState()
        self._work = work
        self._changed = changed

    def _set(self, **fields: Any) -> None:
        state = replace(self.state, **fields)
        if state != self.state:
            self.state = state
            self._changed()

    async def run(self) -> None:
        work, recent = self._work, 0
        process = self._adopted()
        while True:
            if process is None:
                process = self._start()
            if process is None:
                code: int | None = 128
                began = time.monotonic()
            else:
                began = time.monotonic()
                code = await self._attend(process)
                process = None
            cgroup.kill(work.cgroup)
            work.mark.unlink(missing_ok=True)
            if not restarts_again(work.restart_policy, code):
                reason = "Completed" if code == 0 else "Error"
                self._set(running=False, ready=False, started=False, ended=True, exit_code=code, reason=reason, pid=0)
                return
            recent = 1 if time.monotonic() - began > STABLE_S else recent + 1
            delay = backoff_s(recent)
            reason = "CrashLoopBackOff" if delay else "Restarting"
            self._set(
                running=False,
                ready=False,
                started=False,
                exit_code=code,
                reason=reason,
                restarts=self.state.restarts + 1,
                pid=0,
            )
            await asyncio.sleep(delay)

    def _adopted(self) -> Process | None:
        mark = saved_mark(self._work.mark)
        process = adopt(mark) if mark else None
        if process is not None:
            raw = read_json(self._work.mark)
            self._set(running=True, pid=process.pid, restarts=int((raw or {}).get("restarts", 0)), reason="")
        return process

    def _start(self) -> Process | None:
        work = self._work
        try:
            work.cgroup.mkdir(parents=True, exist_ok=True)
            process = start(work.argv, work.env, work.log)
        except (OSError, MeshError) as error:
            self._set(reason=f"StartError: {error}")
            return None
        process.mark.save(work.mark, restarts=self.state.restarts)
        self._set(running=True, pid=process.pid, reason="")
        return process

    async def _attend(self, process: Process) -> int | None:
        """Probe the process until it ends; a failed liveness probe ends it."""
        container = self._work.container
        self._set(started=container.startup is None, ready=container.startup is None and container.readiness is None)
        probes = asyncio.create_task(self._probe_all(process))
        try:
            return await process.wait()
        finally:
            probes.cancel()
            await asyncio.gather(probes, return_exceptions=True)

    async def _probe_all(self, process: Process) -> None:
        container = self._work.container
        if container.startup is not None:
            await self._until_started(process, container.startup)
        async with asyncio.TaskGroup() as group:
            if container.readiness is not None:
                group.create_task(self._probe_readiness(container.readiness))
            if container.liveness is not None:
                group.create_task(self._probe_liveness(process, container.liveness))

    async def _try(self, probe: Probe) -> bool:
        return self._work.ip is not None and not await attempt(probe, self._work.ip)

    async def _until_started(self, process: Process, probe: Probe) -> None:
        await asyncio.sleep(probe.initial_delay_s)
        failures = 0
        while not await self._try(probe):
            failures += 1
            if failures >= probe.failure_threshold:
                await self._end(process)
                return
            await asyncio.sleep(probe.period_s)
        self._set(started=True, ready=self._work.container.readiness is None)

    async def _probe_readiness(self, probe: Probe) -> None:
        verdict = Verdict(False)
        await asyncio.sleep(probe.initial_delay_s)
        first = True
        while True:
            verdict = verdict.after(await self._try(probe), probe)
            self._set(ready=verdict.passed)
            # A server needs a moment to listen; a whole period until the second try would be waiting for nothing.
            await asyncio.sleep(probe.period_s if verdict.passed or not first else min(0.2, probe.period_s))
            first = False

    async def _probe_liveness(self, process: Process, probe: Probe) -> None:
        verdict = Verdict(True)
        await asyncio.sleep(probe.initial_delay_s)
        while verdict.passed:
            await asyncio.sleep(probe.period_s)
            verdict = verdict.after(await self._try(probe), probe)
        await self._end(process)

    async def _end(self, process: Process) -> None:
        process.signal(signal.SIGTERM)
        await asyncio.sleep(self._work.grace_s)
        process.signal(signal.SIGKILL)
