"""Carries one pod in and out of the mesh, step by step; every step is idempotent and written down before it is done.

In: what is open already is noted, rows that pass everything, routes, programs, ztunnel's acknowledgement, and only
then capture goes on and everybody is told. Out: nobody is told to come in this way any more, capture goes off, what is
proxied may end, then everything is taken back in reverse. A pod that was never captured is undone when a step fails;
a pod that was captured stays captured (closed) and the step is tried again.

May not decide which pods belong where (`enrol`), nor when to try again (`converge`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Executor
from dataclasses import replace
from typing import Any, Final, ParamSpec, Protocol, TypeVar

from ambient.agent.enrol import Capture, PodTarget
from ambient.agent.journal import Entry, Journal, Step
from ambient.agent.kernel import Kernel
from ambient.agent.podns import PodNetns
from ambient.datapath.layout import FailMode, Flag, PodRow
from ambient.errors import KernelError, MeshError, Unavailable
from ambient.zds.codec import AddWorkload

P = ParamSpec("P")
T = TypeVar("T")

_PENDING_AFTER_S: Final = 0.3
_DRAIN_POLL_S: Final = 0.25
_ALONE: Final = tuple(step for step in Step if step < Step.ZDS)
"""Steps that wait for the kernel only. Pods take them a few at a time, so that of many some are in early."""
_AT_A_TIME: Final = 2
_CAPTURE: Final = Flag.CAPTURE_OUT | Flag.CAPTURE_IN

log = logging.getLogger("ambient.agent.apply")


class Proxies(Protocol):
    """The ztunnels of the node, as `ambient.agent.ztunnels` has them."""

    def add(self, pod: AddWorkload, netns_fd: int) -> None: ...
    def keep(self, uid: str) -> None: ...
    async def served(self, uid: str) -> None: ...
    async def remove(self, uid: str) -> None: ...


Announce = Callable[[str, str | None], None]
"""Says the pod's redirection state ("enabled", "pending", None) to the world; unknown pods are ignored."""

Checkpoint = Callable[[str, str], None]
"""Called with (pod uid, "before ROUTES", "after ROUTES", "before undo ROUTES", ...); what it raises ends the work."""


def row_of(capture: Capture, epoch: int, host_ifindex: int = 0) -> PodRow:
    """The row of a captured pod."""
    flags = Flag.CAPTURE_OUT | Flag.HBONE_IN
    if capture.inbound:
        flags |= Flag.CAPTURE_IN
    if capture.dns:
        flags |= Flag.DNS
    if capture.direct:
        flags |= Flag.DIRECT
    mode = FailMode.OPEN if capture.fail_open else FailMode.CLOSED
    return PodRow(flags, mode, mode, epoch, host_ifindex)


class Applier:
    def __init__(
        self,
        kernel: Kernel,
        journal: Journal,
        proxies: Proxies,
        announce: Announce,
        *,
        boot: str,
        clock: Callable[[], float],
        threads: Executor,
        drain_s: float,
        linger_s: float,
        checkpoint: Checkpoint = lambda uid, where: None,
    ) -> None:
        """`threads` must run one job at a time, in order: what undoes a step must come after it."""
        self._kernel = kernel
        self._journal = journal
        self._proxies = proxies
        self._announce = announce
        self._boot = boot
        self._clock = clock
        self._threads = threads
        self._drain_s = drain_s
        self._linger_s = linger_s
        self._checkpoint = checkpoint
        self._open: dict[str, PodNetns] = {}
        self._turns = asyncio.Semaphore(_AT_A_TIME)

    @property
    def open(self) -> Mapping[str, PodNetns]:
        """The namespaces of the pods that are in the mesh, by uid."""
        return self._open

    async def resume(self, entry: Entry) -> None:
        """Tell ztunnel about a pod that it may serve since before this agent started, before it is told the
        snapshot."""
        if entry.step < Step.ZDS or entry.boot != self._boot:
            return
        try:
            netns = await self._thread(self._kernel.open_netns, entry.pod)
        except MeshError:
            self._proxies.keep(entry.pod.uid)
            return
        if netns.cookie != entry.netns:
            netns.close()
            return
        self._open[entry.pod.uid] = netns
        self._proxies.add(_workload(entry.pod), netns.fd)

    async def enrol(self, pod: PodTarget) -> None:
        """Bring the pod fully in, from wherever it is; raises MeshError when a step failed (and was undone)."""
        entry = await self._entry(pod)
        netns = self._open[pod.uid]
        captured = self._captured(entry)
        lost = not captured and self._was_captured(entry)
        try:
            absent = await self._thread(self._kernel.absent_addresses, netns, pod.addresses)
            if absent:
                raise Unavailable("pod addresses", str(pod), f"not in {netns.path} yet: {', '.join(map(str, absent))}")
            async with self._turns:
                for step in _ALONE:
                    await self._take(step, pod, netns, captured=captured, lost=lost)
            for step in Step:
                if step not in _ALONE:
                    await self._take(step, pod, netns, captured=captured)
        except (MeshError, OSError) as error:
            reached = self._journal.get(pod.uid)
            if not captured and not lost and reached is not None and not reached.since_unix:
                await self.take_out(pod.uid)
            raise _at(reached.step if reached is not None else Step.OLDER, error) from error
        log.info("pod %s: in the mesh%s", pod, " (as before)" if captured else "")

    async def _take(self, step: Step, pod: PodTarget, netns: PodNetns, *, captured: bool, lost: bool = False) -> None:
        """One step, written down before it is done."""
        self._checkpoint(pod.uid, f"before {step.name}")
        entry = self._journal.get(pod.uid)
        assert entry is not None
        self._journal.change(pod.uid, step=max(step, entry.step))
        work = self._do(step, pod, netns, captured=captured, lost=lost)
        await (work if step is Step.ZDS else _whole(work))
        self._checkpoint(pod.uid, f"after {step.name}")

    async def _entry(self, pod: PodTarget) -> Entry:
        """The journal entry to work on, with the namespace open."""
        known = self._journal.get(pod.uid)
        netns = await self._namespace(pod)
        if known is not None and (known.boot, known.netns) != (self._boot, netns.cookie):
            log.warning("pod %s: has another network namespace than at its enrolment: starting over", pod)
            await self.take_out(pod.uid)
            known, netns = None, await self._namespace(pod)
        if known is None:
            known = Entry(
                pod=pod,
                boot=self._boot,
                netns=netns.cookie,
                step=Step.OLDER,
                epoch=self._journal.next_epoch(),
            )
        self._drop_rows(known, keep=pod.addresses)
        return self._journal.put(replace(known, pod=pod, releasing=False))

    async def _namespace(self, pod: PodTarget) -> PodNetns:
        """The pod's namespace as its path shows it now, kept open."""
        netns = await self._thread(self._kernel.open_netns, pod)
        held = self._open.get(pod.uid)
        if held is not None and held.cookie == netns.cookie:
            netns.close()
            return held
        if held is not None:
            await self._proxies.remove(pod.uid)
            held.close()
        self._open[pod.uid] = netns
        return netns

    def _captured(self, entry: Entry) -> bool:
        """Capture is on for every address already (as this entry's doing)."""
        rows = [self._kernel.row(ip) for ip in entry.pod.addresses]
        return all(row is not None and row.epoch == entry.epoch and Flag.CAPTURE_OUT in row.flags for row in rows)

    def _was_captured(self, entry: Entry) -> bool:
        """Captured once, and either its rows are lost with the node's pins or what we knew of it is lost and only its
        rows are left: it is brought back without a moment of passing."""
        rows = [self._kernel.row(ip) for ip in entry.pod.addresses]
        if entry.since_unix and None in rows:
            return True
        return any(row is not None and row.epoch != entry.epoch and row.flags & _CAPTURE for row in rows)

    async def _do(self, step: Step, pod: PodTarget, netns: PodNetns, *, captured: bool, lost: bool) -> None:
        entry = self._journal.get(pod.uid)
        assert entry is not None
        match step:
            case Step.OLDER if not captured:
                older = await self._thread(self._kernel.record_older, netns, pod.addresses)
                self._journal.change(pod.uid, older=older, since_unix=entry.since_unix if lost else 0.0)
            case Step.ROWS:
                # From the first row on: until ztunnel serves it nobody else's packets may pass with its address.
                ifindex = await self._thread(self._kernel.host_ifindex, netns, pod)
                self._journal.change(pod.uid, host_ifindex=ifindex)
                passing = PodRow(Flag(0), FailMode.CLOSED, FailMode.CLOSED, entry.epoch, ifindex)
                first = row_of(pod.capture, entry.epoch, ifindex) if lost else passing
                rows = {ip: self._kernel.row(ip) for ip in pod.addresses}
                new = {ip: first for ip, row in rows.items() if row is None or row.epoch != entry.epoch}
                await self._thread(self._kernel.put_rows, pod.uid, new)
            case Step.ROUTES:
                if entry.undo is None:
                    self._journal.change(pod.uid, undo=await self._thread(self._kernel.observe, netns))
                await self._thread(self._kernel.prepare, netns)
            case Step.ATTACH:
                await self._thread(self._kernel.attach_pod, netns, pod.uid)
            case Step.HOST:
                await self._thread(self._kernel.attach_host, entry.host_ifindex, pod.uid)
            case Step.ZDS:
                self._proxies.add(_workload(pod), netns.fd)
                if not captured:
                    await self._served(pod)
            case Step.ROW:
                if captured and entry.since_unix:
                    self._kernel.admit_clear(entry.older)
                    await self._thread(self._put_rows, entry)
                else:
                    await self._note_older(pod, netns)
                    await self._thread(self._put_rows, entry)
                    since = self._clock()
                    await self._note_older(pod, netns)
                    self._journal.change(pod.uid, since_unix=since)
            case Step.ANNOTATE:
                self._announce(pod.uid, "enabled")

    async def _note_older(self, pod: PodTarget, netns: PodNetns) -> None:
        """What is open now goes on in the clear when the pod is captured, and is no reason for an alarm."""
        entry = self._journal.get(pod.uid)
        assert entry is not None
        found = await self._thread(self._kernel.record_older, netns, pod.addresses)
        every = {c.cookie: c for c in (*entry.older, *found)}
        self._kernel.admit_clear(every.values())
        self._journal.change(pod.uid, older=tuple(every.values()))

    async def _served(self, pod: PodTarget) -> None:
        """Wait for ztunnel however long it takes; the pod's traffic goes on directly meanwhile."""
        try:
            async with asyncio.timeout(_PENDING_AFTER_S):
                await self._proxies.served(pod.uid)
        except TimeoutError:
            log.warning("pod %s: no ztunnel serves it yet; not captured until one does", pod)
            self._announce(pod.uid, "pending")
            await self._proxies.served(pod.uid)

    async def update(self, pod: PodTarget) -> None:
        """Capture differently, or under other addresses; raises MeshError."""
        entry = self._journal.get(pod.uid)
        if entry is None or not self._captured(entry):
            await self.enrol(pod)
            return
        new = self._journal.put(replace(entry, pod=pod))
        await self._thread(self._put_rows, new)
        await self._thread(self._drop_rows, entry, keep=pod.addresses)
        log.info("pod %s: row changed: %s", pod, pod.capture)

    async def release(self, uid: str, let_go: Callable[[], None] = lambda: None) -> None:
        """Let the pod go on without the mesh: new connections directly, proxied ones until they end or the drain is
        over; then take everything out. `let_go` is called once new connections go directly."""
        entry = self._journal.get(uid)
        if entry is None:
            return
        entry = self._journal.change(uid, releasing=True)
        self._announce(uid, None)
        netns = self._open.get(uid)
        if entry.since_unix and netns is not None:
            self._checkpoint(uid, "before release ROW")
            rows = {ip: self._kernel.row(ip) for ip in entry.pod.addresses}
            ours = {ip: row for ip, row in rows.items() if row is not None and row.epoch == entry.epoch}
            released = {ip: replace(row, flags=Flag.HBONE_IN) for ip, row in ours.items()}
            await self._thread(self._kernel.put_rows, uid, released)
            self._checkpoint(uid, "after release ROW")
            log.info("pod %s: released, letting its proxied connections end", entry.pod)
            let_go()
            await self._drain(netns)
        await self.take_out(uid)
        log.info("pod %s: out of the mesh", entry.pod)

    async def _drain(self, netns: PodNetns) -> None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._drain_s):
                pause = self._linger_s
                while True:
                    await asyncio.sleep(pause)
                    if not await self._thread(self._kernel.proxied, netns):
                        return
                    pause = _DRAIN_POLL_S

    async def take_out(self, uid: str) -> None:
        """Take back everything there may be of this pod, at once, whatever is left of it; raises MeshError."""
        entry = self._journal.get(uid)
        netns = self._open.get(uid)
        self._checkpoint(uid, "before undo ZDS")
        await self._proxies.remove(uid)
        self._checkpoint(uid, "before undo ATTACH")
        await self._thread(self._kernel.detach, uid)
        self._checkpoint(uid, "before undo ROUTES")
        if entry is not None and entry.undo is not None and entry.boot == self._boot:
            await self._restore(entry, netns)
        self._checkpoint(uid, "before undo ROWS")
        if entry is not None:
            await self._thread(self._drop_rows, entry)
            self._announce(uid, None)
        self._checkpoint(uid, "before forget")
        self._journal.drop(uid)
        if self._open.pop(uid, None) is not None and netns is not None:
            netns.close()

    async def _restore(self, entry: Entry, netns: PodNetns | None) -> None:
        assert entry.undo is not None
        opened = None
        if netns is None or netns.cookie != entry.netns:
            try:
                netns = opened = await self._thread(self._kernel.open_netns, entry.pod)
            except MeshError:
                return  # gone, and its routes with it
        try:
            if netns.cookie == entry.netns:
                await self._thread(self._kernel.restore, netns, entry.undo)
        finally:
            if opened is not None:
                opened.close()

    def _put_rows(self, entry: Entry) -> None:
        row = row_of(entry.pod.capture, entry.epoch, entry.host_ifindex)
        self._kernel.put_rows(entry.pod.uid, dict.fromkeys(entry.pod.addresses, row))

    def _drop_rows(self, entry: Entry, keep: tuple[object, ...] = ()) -> None:
        """Delete the rows that are this entry's doing; an address that another pod has by now keeps that pod's row."""
        for ip in entry.pod.addresses:
            row = self._kernel.row(ip)
            if ip not in keep and row is not None and row.epoch == entry.epoch:
                self._kernel.delete_row(ip)

    async def _thread(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, lambda: work(*args, **kwargs))


def _workload(pod: PodTarget) -> AddWorkload:
    return AddWorkload(pod.uid, pod.name, pod.namespace, pod.service_account)


def _at(step: Step, error: MeshError | OSError) -> MeshError:
    """The same error with the step it happened at."""
    what = f"step {step.name}"
    if isinstance(error, MeshError):
        return type(error)(f"{what}: {error.what}", error.where, error.why)
    return KernelError(what, error.filename or "", error.strerror or str(error))


async def _whole(work: Coroutine[Any, Any, None]) -> None:
    """Await work that is never left half done: a cancellation takes effect when it is through."""
    task = asyncio.ensure_future(work)
    try:
        await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        raise
