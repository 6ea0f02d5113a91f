"""What can go wrong in a mesh, each as one blow that a test or the campaign deals under load, and what then holds.

`strike(scene)` is a context manager: the fault is there inside and over afterwards (a crash is over at once).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from time import monotonic
from typing import Final, Literal

from ambient.lab.lab import remove_pins
from tests.support.journey import Journey
from tests.support.lab import until
from tests.support.survival import Load, Verdict, running, whole

BUSY_S: Final = 15.0
"""Of the machines that tests run on; the campaign is for one that does nothing else."""
AT_ONCE_S: Final = 0.05
"""A blow that takes no longer is over when it has fallen."""


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
    begun after the blow succeed), or "may fail" until it is over. `back_s`: new ones succeed this long after it is.
    `wires`: the nodes whose wires are watched, those that the blow does not take away."""

    name: str
    strike: Callable[[Scene], AbstractContextManager[None]]
    held: Literal["go on", "may end"]
    new: Literal["go on", "may fail"]
    back_s: float = 5.0
    wires: tuple[str, ...] = ("n1", "n2")

    def broken(self, verdict: Verdict, *, busy_s: float = 0.0) -> list[str]:
        """Every rule that the verdict breaks. `busy_s`: how long the machine may stand still by itself."""
        found = list(verdict.violations)
        if self.held == "go on":
            found += [f"the open connection to {name}: {how}" for name, how in verdict.held.items() if how]
        if self.new == "go on" and verdict.failed_later:
            found.append(f"{verdict.failed_later} new connections failed: {verdict.reasons}")
        if verdict.recovery_s > self.back_s + busy_s:
            found.append(f"back only after {verdict.recovery_s:.1f} s")
        return found


def deal(fault: Fault, mesh: Journey, round: int = 0) -> Verdict:
    """One blow under load, from a whole mesh to a whole mesh, by nobody's help; the verdict includes broken rules."""
    whole(mesh)
    with Load(mesh, fault.wires) as load:
        load.flows()
        struck = monotonic()
        with fault.strike(Scene(mesh, load, round)):
            fell = monotonic()
        over = monotonic()
        load.settles(over if over - fell > AT_ONCE_S else fell)
        whole(mesh)
        load.settles(monotonic())
    return load.verdict(struck, over if over - fell > AT_ONCE_S else fell)


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


@contextmanager
def _pins(scene: Scene) -> Iterator[None]:
    """Everything below the node's bpffs directory, while all processes live; with a look whether it comes back."""
    folder = scene.mesh.lab.names.bpffs / scene.node
    before = {path.relative_to(folder) for path in folder.rglob("*")}
    remove_pins(folder)
    yield
    until("the pins are back", lambda: {path.relative_to(folder) for path in folder.rglob("*")} >= before)


CRASHES: Final = (
    Fault("kill -9 of a worker", _worker, "may end", "go on", 1.0),
    Fault("kill -9 of the director", _director, "go on", "go on", 1.0),
    Fault("kill -9 of all of ztunnel", _ztunnel, "may end", "may fail", 5.0),
    Fault("kill -9 of all of ztunnel, twice in a row", _ztunnel_twice, "may end", "may fail", 5.0),
    Fault("kill -9 of the agent", _agent, "go on", "go on", 1.0),
    Fault("kill -9 of the control plane", _control, "go on", "go on", 1.0),
    Fault("kill -9 of everything", _everything, "may end", "may fail", 10.0),
)


@contextmanager
def _reboot(scene: Scene) -> Iterator[None]:
    """Of the servers' node: pods and pins gone at once, all of it comes back from the objects."""
    scene.mesh.lab.must("reboot", "n2", "--no-wait")
    yield


STATE: Final = (
    Fault("bpffs pins removed by a stranger", _pins, "go on", "go on", 1.0),
    Fault("reboot of a node", _reboot, "may end", "may fail", 20.0, wires=("n1",)),
)
