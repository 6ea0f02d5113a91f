"""Clocks that jump: of all parts of a mesh at once, by a library preloaded into them; the machine's stays as it is."""

from __future__ import annotations

import shutil
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from time import monotonic
from typing import Final

from ambient.errors import Unavailable
from tests.support.faults import Fault, Scene
from tests.support.faults_node import lasting
from tests.support.journey import Journey
from tests.support.survival import whole

HOUR_S: Final = 3600
_FILE: Final = "CLOCK_SHIFT_FILE"
_SHIFT: Final = struct.Struct("=q")


@contextmanager
def shiftable_clocks() -> Iterator[dict[str, str]]:
    """The environment for a lab whose control plane, agents and ztunnels have a clock that `jumps` can move."""
    clang = shutil.which("clang")
    if clang is None:
        raise Unavailable("no clang", why="it builds what moves the clock")
    with tempfile.TemporaryDirectory(prefix="amb-clock-") as folder:
        library, clock = Path(folder, "clock.so"), Path(folder, "clock")
        source = Path(__file__).with_name("clock_shift.c")
        subprocess.run([clang, "-O2", "-shared", "-fPIC", "-o", str(library), str(source), "-ldl"], check=True)
        clock.write_bytes(_SHIFT.pack(0))
        made = {"LD_PRELOAD": str(library), _FILE: str(clock)}
        yield {f"{part}:{key}": value for part in ("control", "agent", "ztunnel") for key, value in made.items()}


@contextmanager
def shift_clocks(mesh: Journey, seconds: int) -> Iterator[None]:
    """So far away meanwhile."""
    clock = Path(mesh.lab.lab.settings.environment("ztunnel")[_FILE])
    with open(clock, "r+b", buffering=0) as file:
        file.write(_SHIFT.pack(seconds))
        try:
            yield
        finally:
            file.seek(0)
            file.write(_SHIFT.pack(0))


def jumps(seconds: int) -> Callable[[Scene], AbstractContextManager[None]]:
    """25 hours is more than a certificate lives; what is issued meanwhile is from the future afterwards."""

    @contextmanager
    def jump(scene: Scene) -> Iterator[None]:
        """There, until everything is whole under that clock, and back."""
        with shift_clocks(scene.mesh, seconds):
            yield
            lasting(6.0)
            whole(scene.mesh)
            scene.load.settles(monotonic())

    return jump


CLOCKS: Final = (
    Fault("all clocks an hour ahead, and back", jumps(HOUR_S), "go on", "go on", 1.0),
    Fault("all clocks an hour back, and forth", jumps(-HOUR_S), "go on", "may fail", 15.0),
    Fault("all clocks 25 hours ahead, and back", jumps(25 * HOUR_S), "go on", "may fail", 15.0),
)
