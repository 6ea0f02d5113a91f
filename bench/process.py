"""What processes cost, read from /proc: CPU time of all their threads, and memory counted once (PSS)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Memory:
    """Of one process, in KiB: proportional share, and what is its alone."""

    pss: int
    private: int


def cpu_ns(pids: Iterable[int]) -> int:
    """Time on a CPU of all living threads of these processes so far, in nanoseconds (schedstat, first field)."""
    total = 0
    for pid in pids:
        for task in _tasks(pid):
            try:
                total += int((task / "schedstat").read_text().split()[0])
            except (OSError, IndexError):
                continue
    return total


def _tasks(pid: int) -> list[Path]:
    try:
        return list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return []


def parse_rollup(text: str) -> Memory:
    """The figures of a smaps_rollup file."""
    fields = {key: int(rest.split()[0]) for key, _, rest in (line.partition(":") for line in text.splitlines()[1:])}
    return Memory(fields["Pss"], fields["Private_Clean"] + fields["Private_Dirty"])


def memory(pid: int) -> Memory | None:
    """None when the process is gone."""
    try:
        return parse_rollup(Path(f"/proc/{pid}/smaps_rollup").read_text())
    except OSError:
        return None


def arguments(pid: int) -> list[str]:
    """Its command line; that of a worker of ztunnel, which is forked, is one string with spaces. Raises OSError."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").replace("\0", " ").split(" ")


def role(pid: int) -> str:
    """What a process of ours is by its command line: "ztunnel.director", "ztunnel.worker 0", "envoy", ..."""
    try:
        words = arguments(pid)
    except OSError:
        return "gone"
    if "-m" in words:
        module = words[words.index("-m") + 1]
        return f"{module} {words[words.index('--slot') + 1]}" if "--slot" in words else module
    return Path(words[0]).name
