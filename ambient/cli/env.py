"""Everything a command touches outside itself: streams, environment, clock, processes, and the nodes.

Tests give a command an `Env` of their own; `real()` is the only place that knows the actual ones.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import NoReturn, TextIO

from ambient.cli.reach import Reach
from ambient.errors import MeshError


class Exit(IntEnum):
    """What every command's exit code means."""

    OK = 0
    FAILURE = 1
    USAGE = 2
    NEGATIVE = 3
    """The command worked and its answer is no: denied, unhealthy, not there."""


class Usage(MeshError):
    """The command was called in a way that cannot mean anything; exit code 2."""


@dataclass(frozen=True, slots=True)
class Env:
    stdout: TextIO
    stderr: TextIO
    environ: Mapping[str, str]
    now: Callable[[], float]
    """Seconds since the epoch."""
    wait: Callable[[float], None]
    """Let so many seconds pass."""
    reach: Callable[[argparse.Namespace], Reach]
    """The mesh that a command's options name (`ambient.cli.which`)."""
    become: Callable[[Sequence[str]], NoReturn]
    """Replace this process by another command."""

    def line(self, text: str = "") -> None:
        self.stdout.write(text + "\n")

    def complain(self, text: str) -> None:
        self.stderr.write(text + "\n")


def _become(argv: Sequence[str]) -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os.execvp(argv[0], list(argv))


def real() -> Env:
    """The environment of this process."""
    from ambient.cli.which import reach  # it raises Usage, which is here

    return Env(sys.stdout, sys.stderr, os.environ, time.time, time.sleep, reach, _become)
