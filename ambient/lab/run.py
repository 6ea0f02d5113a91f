"""Running the machine's own tools (ip, nft) with their errors kept."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence

from ambient.errors import KernelError


def run(argv: Sequence[str], text: str = "", *, timeout_s: float = 30) -> str:
    """Standard output of a command fed with `text`; raises KernelError with what it said when it fails."""
    try:
        done = subprocess.run(argv, input=text, capture_output=True, text=True, timeout=timeout_s, check=False)
    except FileNotFoundError:
        raise KernelError("a program is missing", argv[0], "install it") from None
    except subprocess.TimeoutExpired:
        raise KernelError("a program does not end", " ".join(argv), f"{timeout_s:g} s are over") from None
    if done.returncode:
        raise KernelError("a command failed", " ".join(argv), (done.stderr or done.stdout).strip()[:2000])
    return done.stdout


def inside(netns: str) -> list[str]:
    """Prefix of a command that is to run in a named network namespace.

    Not `ip netns exec`: that mounts a new /sys, which hides bpffs.
    """
    return ["nsenter", f"--net=/run/netns/{netns}", "--"]


def ip_batch(netns: str, lines: Sequence[str]) -> None:
    """Apply `ip` commands in a network namespace ("" = this one), in one process; stops at the first that fails."""
    argv = ["ip", "-batch", "-"] if not netns else [*inside(netns), "ip", "-batch", "-"]
    run(argv, "\n".join(lines) + "\n")
