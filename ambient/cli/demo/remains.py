"""What a lab leaves on the machine: everything that carries its name. After `down` every list must be empty."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from ambient.lab import cgroup
from ambient.lab.names import NETNS_DIR, Names


def remains(lab: str, proc: Path = Path("/proc")) -> Mapping[str, list[str]]:
    """Kind -> what is there, only kinds with something."""
    names = Names(lab)
    mounted = cgroup.mount_point()
    groups = [mounted / names.cgroup()] if mounted else []
    found = {
        "network namespaces": sorted(p.name for p in NETNS_DIR.glob(f"{names.prefix}-*") if names.owns(p.name)),
        "pins": _tree(names.bpffs),
        "control groups": [str(group) for group in groups if group.exists()],
        "files": _tree(names.folder),
        "network links": sorted(p.name for p in Path("/sys/class/net").iterdir() if p.name.startswith(names.prefix)),
        "processes": processes(names, proc),
    }
    return {kind: things for kind, things in found.items() if things}


def _tree(folder: Path) -> list[str]:
    return [str(folder), *sorted(str(path) for path in folder.rglob("*"))] if folder.exists() else []


def processes(names: Names, proc: Path) -> list[str]:
    """Processes in the lab's control groups, or that have its name or folder among their arguments."""
    found = []
    for entry in proc.iterdir():
        if not entry.name.isdigit():
            continue
        try:
            groups = (entry / "cgroup").read_text()
            arguments = (entry / "cmdline").read_bytes().split(b"\0")
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue  # it ended while we looked
        if state == "Z":
            continue  # dead; its entry waits for whoever is process 1 here
        words = [argument.decode(errors="replace") for argument in arguments]
        ours = f"/{names.prefix}/" in groups or groups.rstrip().endswith(f"/{names.prefix}")
        if ours or any(f"{names.folder}/" in f"{word}/" or _names_it(word, names) for word in words):
            found.append(f"{entry.name} {' '.join(words)[:80]}")
    return found


def _names_it(word: str, names: Names) -> bool:
    """Is a namespace of this lab in it? That of another lab, whose name begins with ours, is not."""
    return any(names.owns(found) for found in re.findall(r"amb-[\w.-]+", word))
