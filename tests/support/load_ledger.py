"""What a mesh holds at a moment: descriptors, memory, streams, sockets in every namespace; and what a load left of it.

    before = at_rest(mesh); ...load...; left = leftovers(mesh, before)      # [] when all is back where it was

A worker keeps one idle tunnel per pod and peer on purpose, for minutes. Those are counted apart, and have a bound of
their own; what is compared with before is everything else. What is made lazily is made by the same load in small.
"""

from __future__ import annotations

import json
import os
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Final

from ambient.datapath.sockets import OPEN_STATES, TcpSocket, TcpState, list_tcp, open_diag
from ambient.errors import KernelError
from ambient.lab.names import NETNS_DIR
from ambient.model.address import HBONE_PORT
from ambient.netns import entered
from tests.support.journey import Journey
from tests.support.lab import LabUnderTest

CLOSE_WAIT_LIMIT_S: Final = 60.0
SLACK_FDS: Final = 4
"""Per part of a node: a page being read, a tunnel that came or went between two looks."""
REST_S: Final = 7.0
"""Longer than a worker keeps what it has ready for a pod's next connections."""
SLACK_KB: Final = 8_192
"""A worker keeps the marks that its busiest turn reached, and which worker has reached them before depends on how the
connections fell to them. What grows for good grows beyond."""
_PARTS: Final = ("ztunnel.worker", "ztunnel.director")
Pair = tuple[str, str, str]
"""Of a tunnel: the client's namespace, its address, its peer's."""


@dataclass(frozen=True, slots=True)
class Process:
    """`name` is "n1 ztunnel.worker"; descriptors counted, proportional memory in KB."""

    name: str
    descriptors: int
    pss_kb: int


@dataclass(frozen=True, slots=True)
class Ledger:
    """`processes` by pid; `sockets`: (namespace, state) -> how many, tunnels apart; `tunnels`: pair -> how many;
    `tunnel_ends`: part of a node -> its ends of tunnels; `streams`: open connections of all workers."""

    processes: dict[int, Process] = field(default_factory=dict)
    sockets: Counter[tuple[str, str]] = field(default_factory=Counter)
    tunnels: Counter[Pair] = field(default_factory=Counter)
    tunnel_ends: Counter[str] = field(default_factory=Counter)
    streams: int = 0

    @property
    def descriptors(self) -> Counter[str]:
        """By node and part, without tunnels: which of a node's workers a connection falls to is chance."""
        found: Counter[str] = Counter()
        for process in self.processes.values():
            found[process.name] += process.descriptors
        return found - self.tunnel_ends

    @property
    def workers(self) -> int:
        """On the node that has most."""
        return max(Counter(p.name for p in self.processes.values() if p.name.endswith("worker")).values())

    @property
    def worst_worker_kb(self) -> int:
        return max(p.pss_kb for p in self.processes.values() if p.name.endswith("worker"))

    def text(self) -> str:
        """One line for reports."""
        return (
            f"{sum(p.descriptors for p in self.processes.values())} descriptors, {sum(self.sockets.values())} sockets, "
            f"{sum(self.tunnels.values())} tunnels, {self.streams} streams, biggest worker {self.worst_worker_kb} KB"
        )


def processes(lab: LabUnderTest) -> dict[int, Process]:
    """Workers and directors of every node."""
    found = {}
    for node in lab.status()["nodes"]:
        for pid in node["components"]["ztunnel"]["pids"]:
            try:
                words = Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ").split(" ")
                part = next((part for part in _PARTS if part in words), "")
                if part:
                    found[pid] = Process(f"{node['name']} {part}", len(os.listdir(f"/proc/{pid}/fd")), pss_kb(pid))
            except OSError:
                continue  # it ended while we looked
    return found


def pss_kb(pid: int) -> int:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("Pss:")).split()[1])


def sockets(lab: LabUnderTest) -> dict[str, list[TcpSocket]]:
    """Open TCP connections by network namespace of the lab, its nodes' included."""
    found = {}
    for place in sorted(NETNS_DIR.glob(lab.names.prefix + "-*")):
        try:
            fd = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
            try:
                with entered(fd), open_diag() as diag:
                    found[place.name] = list_tcp(diag, OPEN_STATES)
            finally:
                os.close(fd)
        except (OSError, KernelError):
            continue  # a pod that is being made or deleted
    return found


def ledger(mesh: Journey) -> Ledger:
    names, pods = mesh.lab.names, mesh.lab.status()["pods"]
    nodes = {names.pod(pod["namespace"], pod["name"]): pod["node"] for pod in pods}
    counted: Counter[tuple[str, str]] = Counter()
    tunnels: Counter[Pair] = Counter()
    ends: Counter[str] = Counter()
    for place, found in sockets(mesh.lab).items():
        for s in found:
            # Loopback in a node is how the parts of the mesh are asked; what asks is a socket, too.
            if s.local.ip.is_loopback or s.state in (TcpState.FIN_WAIT2, TcpState.LAST_ACK, TcpState.CLOSING):
                continue
            if s.state is TcpState.ESTABLISHED and HBONE_PORT in (s.local.port, s.remote.port) and place in nodes:
                ends[f"{nodes[place]} ztunnel.worker"] += 1
                if s.remote.port == HBONE_PORT:
                    tunnels[place, str(s.local.ip), str(s.remote.ip)] += 1
            else:
                counted[place, s.state.name] += 1
    streams = json.loads(mesh.stage.must("connections", "--name", mesh.lab.name, "-o", "json"))
    return Ledger(processes(mesh.lab), counted, tunnels, ends, len(streams))


def at_rest(mesh: Journey) -> Ledger:
    """The ledger, once what was ready for more connections has been given back."""
    now = ledger(mesh)
    while True:
        threading.Event().wait(REST_S)
        before, now = now, ledger(mesh)
        if sum(now.descriptors.values()) >= sum(before.descriptors.values()):
            return now


def leftovers(mesh: Journey, before: Ledger, *, within_s: float = 100.0, slack_kb: int = SLACK_KB) -> list[str]:
    """What is still above `before` after so long, in words; sockets count by namespace."""
    deadline = monotonic() + within_s
    while True:
        now = ledger(mesh)
        left = list(_above(before, now, slack_kb))
        if not left or monotonic() > deadline:
            return left
        threading.Event().wait(0.5)


def _above(before: Ledger, now: Ledger, slack_kb: int) -> Iterator[str]:
    if now.streams > before.streams:
        yield f"{now.streams - before.streams} streams more than before"
    for pid, process in now.processes.items():
        was = before.processes.get(pid)
        if was is None:
            yield f"{process.name} died and was replaced by {pid}"
        elif process.pss_kb > was.pss_kb + slack_kb:
            yield f"{process.name}: {was.pss_kb} KB became {process.pss_kb}"
    for name, count in now.descriptors.items():
        if count > before.descriptors[name] + SLACK_FDS:
            yield f"{name}: {before.descriptors[name]} descriptors became {count}"
    for (place, ours, theirs), count in now.tunnels.items():
        if count > now.workers:
            yield f"{place}: {count} tunnels from {ours} to {theirs} kept by {now.workers} workers"
    for (place, state), count in now.sockets.items():
        allowed = SLACK_FDS if state == "ESTABLISHED" else 0
        if count > before.sockets[place, state] + allowed:
            yield f"{place}: {before.sockets[place, state]} {state} became {count}"


class Watch:
    """Looks every second for sockets that stay in CLOSE-WAIT."""

    def __init__(self, lab: LabUnderTest) -> None:
        self._lab = lab
        self._since: dict[tuple[str, int], float] = {}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.worst_s = 0.0
        self.worst = ""

    def _run(self) -> None:
        while not self._end.wait(1.0):
            self.look()

    def look(self) -> None:
        now = monotonic()
        waiting = {
            (place, s.cookie): s
            for place, found in sockets(self._lab).items()
            for s in found
            if s.state is TcpState.CLOSE_WAIT
        }
        self._since = {key: self._since.get(key, now) for key in waiting}
        for key, began in self._since.items():
            if now - began > self.worst_s:
                self.worst_s, socket = now - began, waiting[key]
                self.worst = f"{key[0]} {socket.local} - {socket.remote}"

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._end.set()
        self._thread.join()

    def broken(self) -> list[str]:
        if self.worst_s <= CLOSE_WAIT_LIMIT_S:
            return []
        return [f"CLOSE-WAIT for {self.worst_s:.0f} s: {self.worst}"]


@contextmanager
def watched(lab: LabUnderTest) -> Iterator[Watch]:
    """No socket of the lab may stay in CLOSE-WAIT for more than a minute meanwhile; ask `broken()`."""
    watch = Watch(lab)
    watch.start()
    try:
        yield watch
    finally:
        watch.stop()
