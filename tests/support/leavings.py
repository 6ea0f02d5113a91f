"""What runs of these tests that were killed have left on this machine: all of it has their pid in its name."""

from __future__ import annotations

import re
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import Final

from ambient.datapath import cgroups
from ambient.lab.names import LABS
from tests.support.capture_world import run

BPFFS: Final = Path("/sys/fs/bpf")
NETNS: Final = Path("/run/netns")
_RUN: Final = r"amb-(?:bt|ag[dfprs]?|any|cn|kpl|left|nl|pn|rpl|smn)-(\d+)"
_NAMESPACE: Final = re.compile(_RUN + "-(?:node|pod|other|outside)")
"""These and no others: a lab that runs may be called anything with a number, `soak-345299` or `cn-1234` for two."""
_PINS: Final = re.compile(_RUN + "(?:-(?:(?:bcc|object)(?:-named)?|other|forms|versions|scratch))?")
_GROUP: Final = re.compile(_RUN)


def collect(labs: Path = LABS) -> None:
    """Take away namespaces, pins and control groups of runs that are over. Others may do the same meanwhile.
    `labs`: has a folder of each lab there is, whose things stay."""
    for path in _dead(NETNS, _NAMESPACE, labs):
        try:
            run("ip", "netns", "del", path.name)
        except subprocess.CalledProcessError:
            if path.exists():
                raise
    for path in _dead(BPFFS, _PINS, labs):
        shutil.rmtree(path, ignore_errors=True)
    root = cgroups.mount_point()
    for path in _dead(root, _GROUP, labs) if root is not None else ():
        with suppress(OSError):  # somebody is in it still
            for below in (*path.iterdir(), path):
                if below.is_dir():
                    below.rmdir()


def _dead(folder: Path, names: re.Pattern[str], labs: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    named = ((path, names.fullmatch(path.name)) for path in folder.iterdir())
    over = [path for path, found in named if found is not None and not Path(f"/proc/{found[1]}").exists()]
    return [path for path in over if not (labs / path.name.removeprefix("amb-")).exists()]
