"""What can go wrong in a mesh, each as one blow that a test or the campaign deals under load, and what then holds.

`strike(scene)` is a context manager: the fault is there inside and over afterwards (a crash is over at once).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Final, Literal

from tests.support.journey import Journey
from tests.support.lab import until
from tests.support.survival import Load, Verdict, running, whole


@dataclass(frozen=True, slots=True)
class Scene:
    """Where the blow falls. `round` makes the nodes take turns."""

    mesh: Journey
    load: Load
    round: int = 0

    @property
    def node(self) -> str:
        return ("n1", "n2")[self.round % 2]


@dataclass(frozen=True, slots=True)
class Fault:
    """`held`: open connections "go on", or "may end" (with whom they ran through); `new`: new ones "go on" (those
    begun after the blow succeed), or "may fail" until it is over. `back_s`: new ones succeed this long after it is."""

    name: str
    strike: Callable[[Scene], AbstractContextManager[None]]
    held: Literal["go on", "may end"]
    new: Literal["go on", "may fail"]
    back_s: float = 5.0

    def broken(self, verdict: Verdict) -> list[str]:
        """Every rule that the verdict breaks."""
        found = list(verdict.violations)
        if self.held == "go on":
            found += [f"the open connection to {name}: {how}" for name, how in verdict.held.items() if how]
        if self.new == "go on" and verdict.failed_later:
            found.append(f"{verdict.failed_later} new connections failed: {verdict.reasons}")
        if verdict.recovery_s > self.back_s:
            found.append(f"back only after {verdict.recovery_s:.1f} s")
        return found


def deal(fault: Fault, mesh: Journey, round: int = 0) -> Verdict:
    """One blow under load, from a whole mesh to a whole mesh, by nobody's help; the verdict includes broken rules."""
    whole(mesh)
    lifted = None
    with Load(mesh) as load:
        load.flows()
        struck = monotonic()
        with fault.strike(Scene(mesh, load, round)):
            fell = monotonic()
        if monotonic() - fell > 0.05:
            lifted = monotonic()
        load.settles(lifted or struck)
        whole(mesh)
    return load.verdict(struck, lifted)


@contextmanager
def _worker(scene: Scene) -> Iterator[None]:
    pids = running(scene.mesh, scene.node, "ztunnel.worker")
    scene.mesh.lab.signal(pids[scene.round // 2 % len(pids)], "KILL")
    yield


@contextmanager
def _director(scene: Scene) -> Iterator[None]:
    for pid in running(scene.mesh, scene.node, "ztunnel.director"):
        scene.mesh.lab.signal(pid, "KILL")
    yield


def kill_ztunnel(mesh: Journey, node: str) -> None:
    """Supervisor first, so that it starts nobody again."""
    supervisor = running(mesh, node, "ztunnel")
    others = set(mesh.lab.component(node, "ztunnel")["pids"]) - set(supervisor)
    for pid in [*supervisor, *others]:
        mesh.lab.signal(pid, "KILL")


@contextmanager
def _ztunnel_twice(scene: Scene) -> Iterator[None]:
    mesh, node = scene.mesh, scene.node
    first = set(running(mesh, node, "ztunnel.worker"))
    kill_ztunnel(mesh, node)
    until("it is starting again", lambda: set(running(mesh, node, "ztunnel.worker")) - first)
    kill_ztunnel(mesh, node)
    yield


@contextmanager
def _ztunnel(scene: Scene) -> Iterator[None]:
    kill_ztunnel(scene.mesh, scene.node)
    yield


@contextmanager
def _agent(scene: Scene) -> Iterator[None]:
    for pid in scene.mesh.lab.component(scene.node, "agent")["pids"]:
        scene.mesh.lab.signal(pid, "KILL")
    yield


@contextmanager
def _control(scene: Scene) -> Iterator[None]:
    for pid in scene.mesh.lab.status()["control"]["pids"]:
        scene.mesh.lab.signal(pid, "KILL")
    yield


@contextmanager
def _everything(scene: Scene) -> Iterator[None]:
    mesh = scene.mesh
    for node in ("n1", "n2"):
        kill_ztunnel(mesh, node)
        for pid in mesh.lab.component(node, "agent")["pids"]:
            mesh.lab.signal(pid, "KILL")
    for pid in mesh.lab.status()["control"]["pids"]:
        mesh.lab.signal(pid, "KILL")
    yield


CRASHES: Final = (
    Fault("kill -9 of a worker", _worker, "may end", "go on", 1.0),
    Fault("kill -9 of the director", _director, "go on", "go on", 1.0),
    Fault("kill -9 of all of ztunnel", _ztunnel, "may end", "may fail", 5.0),
    Fault("kill -9 of all of ztunnel, twice in a row", _ztunnel_twice, "may end", "may fail", 5.0),
    Fault("kill -9 of the agent", _agent, "go on", "go on", 1.0),
    Fault("kill -9 of the control plane", _control, "go on", "go on", 1.0),
    Fault("kill -9 of everything", _everything, "may end", "may fail", 10.0),
)
