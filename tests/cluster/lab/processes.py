"""Starting processes that outlive us, remembering them, ending them."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.support.waiting import until


def run(*argv: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Raises SystemExit with what the command said."""
    result = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if check and result.returncode != 0:
        raise SystemExit(f"cluster: {' '.join(map(str, argv))}: {(result.stderr + result.stdout).strip()}")
    return result


def start(mark: Path, log: Path, argv: Sequence[str | Path]) -> int:
    """Start it in a session of its own; `mark` remembers pid and start time."""
    log.parent.mkdir(parents=True, exist_ok=True)
    mark.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        pid = os.posix_spawnp(
            argv[0],
            argv,
            os.environ,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, output.fileno(), 1),
                (os.POSIX_SPAWN_DUP2, output.fileno(), 2),
            ],
            setsid=True,
        )
    mark.write_text(f"{pid} {born(pid)}")
    return pid


def born(pid: int) -> str:
    """When it started, in ticks since boot; "" when there is no such process or only its remains."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if fields[0] in "ZX" else fields[19]


def alive(mark: Path) -> int | None:
    """Its pid while it runs."""
    try:
        pid, birth = mark.read_text().split()
    except (FileNotFoundError, ValueError):
        return None
    return int(pid) if born(int(pid)) == birth else None


def end(mark: Path, *, first: int = signal.SIGTERM, grace_s: float = 5.0) -> None:
    """End it, harder after `grace_s`, and wait until it is gone."""
    pid = alive(mark)
    if pid is not None:
        os.kill(pid, first)
        try:
            wait(lambda: alive(mark) is None, f"the end of {mark.name}", grace_s)
        except TimeoutError:
            os.kill(pid, signal.SIGKILL)
            wait(lambda: alive(mark) is None, f"the end of {mark.name}", 10)
    mark.unlink(missing_ok=True)


def wait(done: Callable[[], bool], what: str, patience_s: float) -> None:
    """Until `done`; raises TimeoutError saying what was waited for."""
    try:
        until(done, patience_s=patience_s, pause_s=0.1)
    except AssertionError:
        raise TimeoutError(f"cluster: no {what} in {patience_s:.0f} s") from None


def inside(netns: str, *argv: str | Path) -> list[str | Path]:
    """The command line that runs `argv` in a named network namespace."""
    return ["nsenter", f"--net=/run/netns/{netns}", *argv]
