"""The loads that a mesh must bear, each a scene with a verdict: tests run them small, the campaign in full.

with peers(mesh):
    scene = sequence(mesh, 1_000)
    assert not scene.broken, scene
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from ambient.cli.demo.stage import PYTHON
from tests.support import load_programs as programs
from tests.support.journey import FAR, LEGACY, NEAR, OUTSIDE, WEB, Journey
from tests.support.lab import until
from tests.support.load_ledger import processes

PATHS: Final = (
    *((WEB, pod, version) for pod in (FAR, NEAR) for version in (4, 6)),
    (OUTSIDE, FAR, 4),
    (OUTSIDE, NEAR, 6),
    (WEB, LEGACY, 4),
)
"""Through the mesh across nodes and on one, into it in plain text, and out of it."""
OTHERS_S: Final = 20.0
"""A connection that stood still with those that stall would do so for longer, a busy machine does not."""
MAX_STALLED_KB: Final = 1_280
"""What a stream may cost the two workers it runs through, together, while nobody takes its octets."""


@dataclass(slots=True)
class Scene:
    """What a load came to: figures for the record, and every rule that it broke."""

    name: str
    figures: dict[str, Any] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return f"{self.name}: {self.figures}; {'; '.join(self.broken) or 'nothing broken'}"


@contextmanager
def peers(mesh: Journey, *pods: str) -> Iterator[None]:
    """PEER runs in these pods (without arguments: those of PATHS)."""
    with ExitStack() as stack:
        for pod in pods or (FAR, NEAR, LEGACY):
            serving = mesh.lab.start(pod, PYTHON, "-u", "-c", programs.PEER)
            stack.callback(_end, serving)
            assert serving.stdout is not None
            assert serving.stdout.readline() == "listening\n", serving.communicate()
        yield


def _end(process: subprocess.Popen[str]) -> None:
    process.kill()
    process.communicate()


def run(mesh: Journey, pod: str, program: str, *words: object, timeout_s: float = 400) -> dict[str, Any]:
    """A client in a pod; what it says."""
    ran = mesh.stage.exec(pod, PYTHON, "-c", program, *map(str, words), timeout_s=timeout_s)
    assert ran.code == 0, ran.err
    said: dict[str, Any] = json.loads(ran.out)
    return said


def hosts(mesh: Journey) -> list[str]:
    return [mesh.host(pod, version) for pod in (FAR, NEAR) for version in (4, 6)]


def sequence(mesh: Journey, times: int) -> Scene:
    """One connection after the other."""
    said = run(mesh, WEB, programs.SEQUENCE, times, *hosts(mesh))
    return Scene(f"{times} sequential connections", said, _failures(said["failed"]))


def crowd(mesh: Journey, count: int, rounds: int = 3) -> Scene:
    """All open at once, none in the way of another."""
    scene = Scene(f"{count} connections open at once")
    process = mesh.lab.start(WEB, PYTHON, "-u", "-c", programs.CROWD, str(count), str(rounds), *hosts(mesh))
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n", process.communicate()
        held = processes(mesh.lab).values()
        scene.figures["biggest_worker_kb_meanwhile"] = max(p.pss_kb for p in held if p.name.endswith("worker"))
        scene.figures["descriptors_meanwhile"] = sum(p.descriptors for p in held)
        out, err = process.communicate("go\n", timeout=300)
        assert process.returncode == 0, err
        scene.figures |= json.loads(out)
        scene.broken += _failures(scene.figures["failed"])
    finally:
        _end(process)
    return scene


def trickle(mesh: Journey, size: int, paths: int = len(PATHS)) -> Scene:
    """Byte by byte out and back."""
    scene = Scene(f"{size} octets one by one")
    for client, pod, version in PATHS[:paths]:
        said = run(mesh, client, programs.TRICKLE, mesh.host(pod, version), size)
        scene.figures[f"{client} -> {pod} v{version}"] = f"{said['seconds']:.1f} s"
        if not said["whole"]:
            scene.broken.append(f"{client} -> {pod} v{version}: {said['size']} of {size} octets, or others")
    return scene


def resets(mesh: Journey, times: int, *words: str, paths: int = len(PATHS)) -> Scene:
    """Either side resets at every stage; what the other hears must be abortive, too."""
    scene = Scene("resets at every stage")
    tried = 0
    for client, pod, version in PATHS[:paths]:
        said = run(mesh, client, programs.RESETS, mesh.host(pod, version), times, *words)
        tried += sum(said["tried"].values())
        scene.broken += [f"{client} -> {pod} v{version}: {what} ({n} times)" for what, n in said["wrong"].items()]
    scene.figures["resets"] = tried
    return scene


def stall(mesh: Journey, pod: str, count: int, *, then: str = "read", size: int = 16 << 20) -> Scene:
    """`count` readers and as many writers stall; others must not notice, and memory is counted. Then the readers
    read on ("read": everything must arrive whole) or the client is killed ("die")."""
    scene = Scene(f"{count} stalled readers and {count} stalled writers to {pod}")
    before = _workers(mesh)
    words = [mesh.host(pod, 4), count, count, size]
    process = mesh.lab.start(WEB, PYTHON, "-u", "-c", programs.STALL, *map(str, words))
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        scene.figures |= json.loads(process.stdout.readline() or "{}")
        now = _workers(mesh)
        grown = sum(max(0, now[pid] - before.get(pid, 0)) for pid in now)
        scene.figures["kb_per_stalled_stream"] = grown // (2 * count)
        if grown > 2 * count * MAX_STALLED_KB:
            scene.broken.append(f"{grown} KB for {2 * count} stalled streams")
        others = sequence(mesh, 200)
        scene.figures["others_worst_s"] = others.figures["worst_s"]
        scene.broken += [f"meanwhile: {what}" for what in others.broken]
        if others.figures["worst_s"] > OTHERS_S:
            scene.broken.append(f"meanwhile one took {others.figures['worst_s']:.1f} s")
        if then == "read":
            process.stdin.write("read\n")
            process.stdin.flush()
            said = json.loads(process.stdout.readline() or '{"wrong": "all"}')
            if said["wrong"]:
                scene.broken.append(f"after the stall {said['wrong']} streams were not whole")
    finally:
        _end(process)
    run(mesh, WEB, _RELEASE, mesh.host(pod, 4))
    return scene


_RELEASE: Final = r"""
import socket, sys
with socket.create_connection((sys.argv[1], 7200), 10) as s:
    s.sendall(b"release\n"); s.recv(1)
print("{}")
"""


def _workers(mesh: Journey) -> dict[int, int]:
    return {pid: p.pss_kb for pid, p in processes(mesh.lab).items() if p.name.endswith("worker")}


def _failures(failed: dict[str, int]) -> list[str]:
    return [f"{count} times: {why}" for why, count in failed.items()]


def warm(mesh: Journey) -> None:
    """Every worker has what it keeps: a small load of each kind."""
    crowd(mesh, 100, 1)
    resets(mesh, 1)
    sequence(mesh, 100)
    for pod in (FAR, NEAR):
        stall(mesh, pod, 40)
    until("the warm-up is over", lambda: not _open(mesh))


def _open(mesh: Journey) -> int:
    return len(json.loads(mesh.stage.must("connections", "--name", mesh.lab.name, "-o", "json")))
