"""`ambient join`: this machine's workload, in a network namespace of its own, becomes a member of the mesh.

Runs in the foreground, as a service manager wants it: joins by a ticket (or goes on as what it was), stays, and leaves
at SIGTERM. Needs root.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import sys
from pathlib import Path
from typing import Final

from ambient.ca.ticket import Ticket
from ambient.cli.env import Env, Exit, Usage
from ambient.errors import InvalidInput, Refused
from ambient.join.machine import Machine, place
from ambient.join.run import serve
from ambient.log import log_lines

STATE: Final = Path("/var/lib/ambient/join")
RUN: Final = Path("/run/ambient/join")
_NAME: Final = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,59}")


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--netns", required=True, metavar="NAME|PATH", help="the workload's network namespace")
    parser.add_argument("--ticket", metavar="FILE", help="from `ambient ticket create`; - is stdin; once is enough")
    parser.add_argument("--address", default="", metavar="IP", help="the workload's address, if it should be checked")
    parser.add_argument("--state", type=Path, default=STATE, metavar="DIR", help=f"what lasts (default: {STATE})")
    parser.add_argument(
        "--allow-probe-commands",
        action="store_true",
        help="run a probe of the WorkloadGroup that is a command, as root: whoever may change the group says which",
    )


def run(env: Env, args: argparse.Namespace) -> int:
    """0 when it left as it was told to."""
    netns = place(args.netns)
    if not _NAME.fullmatch(netns.name):
        raise Usage("--netns", repr(args.netns), "its last part names it: letters, digits, '-', '_' and '.'")
    ticket = _ticket(args.ticket) if args.ticket else None
    if os.geteuid():
        raise Refused("not root", why="joining takes eBPF and control groups: run it as root or with sudo")
    log_lines("info")
    machine = Machine(netns.name, netns, RUN / netns.name, args.state / netns.name)
    asyncio.run(serve(machine, ticket, args.address, commands=args.allow_probe_commands))
    return Exit.OK


def _ticket(path: str) -> Ticket:
    try:
        return Ticket.read(sys.stdin.read() if path == "-" else Path(path).read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput("ticket", path, str(error)) from None
