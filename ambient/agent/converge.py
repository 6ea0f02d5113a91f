"""One task per pod that keeps trying until the pod is where the plan wants it; a new wish replaces the old one.

Knows order (a pod waits until those whose addresses it takes over are gone) and patience (5 ms, doubling to 5 s). What
a step is belongs to `apply`, what is wished to `enrol`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from ambient.agent.apply import Applier
from ambient.agent.enrol import Action, Enrol, Gone, Held, PodTarget, Release, UpdateRow
from ambient.errors import MeshError, Unavailable

FIRST_RETRY_S: Final = 0.005
LAST_RETRY_S: Final = 5.0
GIVE_UP_WAITING_S: Final = 10.0
"""A pod that has failed for this long no longer keeps a revision from counting as observed; it is tried on."""

log = logging.getLogger("ambient.agent.converge")


class State(StrEnum):
    WAITING = "waiting"
    ENROLLED = "enrolled"
    RELEASING = "releasing"
    LEAVING = "leaving"


@dataclass(slots=True)
class Tracked:
    """A pod on its way in or out, or in. `let_go`: of one that is being released, new connections go directly.
    `problem` is why the last attempt failed, `failing_since` when the first of an unbroken row did, `since` when the
    present state was wished for (loop time)."""

    pod: PodTarget
    state: State
    task: asyncio.Task[None] | None = None
    let_go: bool = False
    problem: str = ""
    failing_since: float | None = None
    since: float = 0.0

    def overdue(self, after_s: float) -> bool:
        """It has been on its way for this long."""
        return asyncio.get_running_loop().time() - self.since > after_s


class Convergence:
    """`changed` is called whenever a pod has reached a state or failed; `failures` counts attempts that failed."""

    def __init__(self, applier: Applier, changed: Callable[[], None]) -> None:
        self._applier = applier
        self._changed = changed
        self._tracked: dict[str, Tracked] = {}
        self.failures = 0

    @property
    def tracked(self) -> Mapping[str, Tracked]:
        return self._tracked

    def held(self) -> dict[str, Held]:
        """What the plan is made against."""
        return {
            uid: Held(t.pod, releasing=t.state is State.RELEASING)
            for uid, t in self._tracked.items()
            if t.state is not State.LEAVING
        }

    def adopt(self, pod: PodTarget) -> None:
        """A pod that a journal speaks of: it counts as being released until the plan says otherwise."""
        self._tracked[pod.uid] = Tracked(pod, State.RELEASING)

    def resume_releases(self) -> None:
        """Go on with the adopted pods that no action has claimed."""
        for uid, tracked in self._tracked.items():
            if tracked.state is State.RELEASING and tracked.task is None:
                self._begin(uid, tracked, State.RELEASING, self._release, uid)

    def act(self, actions: Iterable[Action]) -> None:
        """Start these; returns at once."""
        for action in actions:
            match action:
                case Enrol(pod):
                    tracked = self._tracked.setdefault(pod.uid, Tracked(pod, State.WAITING))
                    tracked.pod = pod
                    self._begin(pod.uid, tracked, State.WAITING, self._enrol, pod)
                case UpdateRow(pod):
                    tracked = self._tracked[pod.uid]
                    tracked.pod = pod
                    work = self._update if tracked.state is State.ENROLLED else self._enrol
                    self._begin(pod.uid, tracked, State.WAITING, work, pod)
                case Release(uid, why):
                    log.info("pod %s: leaves the mesh: %s", self._tracked[uid].pod, why)
                    self._begin(uid, self._tracked[uid], State.RELEASING, self._release, uid)
                case Gone(uid, why):
                    log.info("pod %s: %s", self._tracked[uid].pod, why)
                    self._begin(uid, self._tracked[uid], State.LEAVING, self._applier.take_out, uid)

    def settled(self) -> bool:
        """Every pod is where the plan wants it; those that fail for long do not count."""
        now = asyncio.get_running_loop().time()
        return all(
            t.state is State.ENROLLED
            or (t.state is State.RELEASING and t.let_go)
            or (t.failing_since is not None and now - t.failing_since > GIVE_UP_WAITING_S)
            for t in self._tracked.values()
        )

    async def close(self) -> None:
        """Stop all tasks where they are; nothing is undone."""
        tasks = [t.task for t in self._tracked.values() if t.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _begin(
        self, uid: str, tracked: Tracked, state: State, work: Callable[[Any], Coroutine[Any, Any, None]], argument: Any
    ) -> None:
        before = tracked.task
        tracked.state, tracked.let_go = state, False
        tracked.problem, tracked.failing_since = "", None
        tracked.since = asyncio.get_running_loop().time()
        tracked.task = asyncio.create_task(
            self._try(uid, tracked, before, work, argument), name=f"{state} {tracked.pod}"
        )

    async def _try(
        self,
        uid: str,
        tracked: Tracked,
        before: asyncio.Task[None] | None,
        work: Callable[[Any], Coroutine[Any, Any, None]],
        argument: Any,
    ) -> None:
        if before is not None and not before.done():
            before.cancel()
            await asyncio.wait({before})
        pause = FIRST_RETRY_S
        while True:
            try:
                await work(argument)
                break
            except (MeshError, OSError) as error:
                if tracked.problem != str(error):
                    level = logging.INFO if isinstance(error, Unavailable) else logging.WARNING
                    log.log(level, "pod %s: %s: %s", tracked.pod, tracked.state, error)
                self._failed(tracked, str(error))
            except Exception as error:
                # A fault of ours with one pod must not leave the others, or this one for good, unattended.
                log.exception("pod %s: %s: unexpected", tracked.pod, tracked.state)
                self._failed(tracked, repr(error))
                pause = LAST_RETRY_S
            await asyncio.sleep(pause)
            pause = min(pause * 2, LAST_RETRY_S)
        tracked.problem, tracked.failing_since = "", None
        if tracked.state is State.WAITING:
            tracked.state = State.ENROLLED
        elif self._tracked.get(uid) is tracked:
            del self._tracked[uid]
        self._changed()

    def _failed(self, tracked: Tracked, problem: str) -> None:
        self.failures += 1
        tracked.problem = problem
        if tracked.failing_since is None:
            tracked.failing_since = asyncio.get_running_loop().time()
        self._changed()

    async def _enrol(self, pod: PodTarget) -> None:
        await self._addresses_free(pod)
        await self._applier.enrol(pod)

    async def _update(self, pod: PodTarget) -> None:
        await self._addresses_free(pod)
        await self._applier.update(pod)

    async def _release(self, uid: str) -> None:
        tracked = self._tracked[uid]

        def let_go() -> None:
            tracked.let_go = True
            self._changed()

        await self._applier.release(uid, let_go)

    async def _addresses_free(self, pod: PodTarget) -> None:
        """Wait for pods that are leaving and had one of these addresses: their rows must not outlive this point."""
        leaving = {
            t.task
            for uid, t in self._tracked.items()
            if uid != pod.uid
            and t.state is State.LEAVING
            and t.task is not None
            and {*t.pod.addresses} & {*pod.addresses}
        }
        if leaving:
            await asyncio.wait(leaving)
