"""The table of commands, and how a command line becomes a call: arguments parsed, errors made readable.

Exit codes of every command: 0 it worked, 1 it failed, 2 it was called wrongly, 3 it worked and the answer is no.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType, ModuleType
from typing import Final

from ambient.cli.env import Env, Exit, Usage, real
from ambient.cli.which import mesh_options
from ambient.errors import MeshError


@dataclass(frozen=True, slots=True)
class Command:
    """One row: the module `ambient.cli.<module>` has `run(env, args) -> int` and, unless `raw`, `arguments(parser)`.

    A raw command gets everything after its name as `args.rest` and has a help of its own.
    """

    module: str
    summary: str
    examples: tuple[str, ...]
    raw: bool = False
    mesh: bool = True
    """Whether it takes the options that name a mesh."""


COMMANDS: Final[Mapping[str, Command]] = MappingProxyType(
    {
        "status": Command(
            "status", "every node at a glance", ("ambient status", "ambient status --context prod -o json")
        ),
        "check": Command(
            "check",
            "is every part healthy? exit code 3 if not",
            ("ambient check", "ambient check --pre", "ambient check -o json"),
        ),
        "install": Command(
            "install",
            "put the mesh on a cluster",
            (
                "ambient install --image registry.example.org/ambient:0.1.0",
                "ambient install --image registry.example.org/ambient:0.1.0 --set TRUST_DOMAIN=example.org --diff",
            ),
            mesh=False,
        ),
        "upgrade": Command(
            "upgrade",
            "make what is installed what this version ships",
            ("ambient upgrade --image registry.example.org/ambient:0.2.0 --diff",),
            mesh=False,
        ),
        "uninstall": Command(
            "uninstall",
            "take the mesh off a cluster and its nodes",
            ("ambient uninstall", "ambient uninstall --crds"),
            mesh=False,
        ),
        "pods": Command(
            "pods",
            "pods the agents know, and whether they are in the mesh",
            ("ambient pods -n shop", "ambient pods --cut shop/web"),
        ),
        "workloads": Command("workloads", "what the proxies know of workloads", ("ambient workloads --node n1",)),
        "services": Command("services", "what the proxies know of services", ("ambient services -n shop",)),
        "policies": Command("policies", "authorization policies in force", ("ambient policies -n shop -o json",)),
        "certs": Command("certs", "certificates held on each node", ("ambient certs --node n2",)),
        "connections": Command("connections", "open connections through the proxies", ("ambient connections -n shop",)),
        "flows": Command(
            "flows",
            "connections as they open, close or are denied",
            ("ambient flows --follow", "ambient flows event=denied to=shop/db", "ambient flows pod=shop/web -o json"),
        ),
        "explain": Command(
            "explain",
            "how a connection would go and who allows or denies it; exit code 3 if denied",
            ("ambient explain shop/web shop/db:5432", "ambient explain 10.1.2.3 db.shop.svc.cluster.local:5432"),
        ),
        "waypoint": Command(
            "waypoint",
            "make, look at and delete waypoints; exit code 3 if one is not ready",
            (
                "ambient waypoint apply -n shop --enroll-namespace --wait",
                "ambient waypoint status -A",
                "ambient waypoint delete waypoint -n shop",
            ),
            mesh=False,
        ),
        "lab": Command("lab", "the one-machine lab", ("ambient lab up", "ambient lab apply -f app.yaml"), raw=True),
        "ticket": Command(
            "ticket",
            "make a ticket with which a workload outside Kubernetes may join, once",
            ("ambient ticket create --group shop/ledger", "ambient ticket create --group shop/ledger --ttl 10m"),
        ),
        "join": Command(
            "join",
            "on a machine outside Kubernetes: be a member of the mesh until told to end",
            ("ambient join --netns ledger --ticket ledger.ticket",),
            mesh=False,
        ),
        "demo": Command("demo", "tell and prove the story in a lab of its own", ("ambient demo --keep",), mesh=False),
        "agent": Command("process", "run the node agent (set up by its environment)", ("ambient agent",), raw=True),
        "control": Command("process", "run the control plane", ("ambient control",), raw=True),
        "completion": Command(
            "completion",
            "shell completion",
            ('eval "$(ambient completion bash)"', "ambient completion zsh"),
            mesh=False,
        ),
        "version": Command(
            "version", "versions of this program and its parts", ("ambient version -o json",), mesh=False
        ),
    }
)


def parser_of(name: str) -> argparse.ArgumentParser:
    """The complete parser of one command that is not raw."""
    command = COMMANDS[name]
    parser = argparse.ArgumentParser(
        prog=f"ambient {name}",
        description=command.summary,
        epilog="examples:\n" + "\n".join(f"  {example}" for example in command.examples),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    if command.mesh:
        mesh_options(parser)
    arguments: Callable[[argparse.ArgumentParser], None] = _module(command).arguments
    arguments(parser)
    return parser


def _module(command: Command) -> ModuleType:
    return importlib.import_module(f"ambient.cli.{command.module}")


def usage() -> str:
    width = max(len(name) for name in COMMANDS)
    rows = "\n".join(f"  {name.ljust(width)}  {command.summary}" for name, command in COMMANDS.items())
    return (
        f"usage: ambient COMMAND [--name LAB | --context CONTEXT] ...\n\n{rows}\n\n"
        "ambient COMMAND --help shows arguments and examples.\n"
        "exit codes: 0 it worked, 1 it failed, 2 wrong usage, 3 it worked and the answer is no"
    )


def dispatch(env: Env, argv: Sequence[str]) -> int:
    """Run one command line (without the program's name); never raises for bad input."""
    if not argv or argv[0] in ("-h", "--help", "help"):
        env.line(usage())
        return Exit.OK if argv else Exit.USAGE
    name, rest = argv[0], list(argv[1:])
    if name == "--version":
        name = "version"
    command = COMMANDS.get(name)
    if command is None:
        env.complain(f"ambient: no command {name!r}\n\n{usage()}")
        return Exit.USAGE
    try:
        raw = argparse.Namespace(command=name, rest=rest)
        args = raw if command.raw else parser_of(name).parse_args(rest)
        run: Callable[[Env, argparse.Namespace], int] = _module(command).run
        return run(env, args)
    except Usage as error:
        env.complain(f"ambient {name}: {error}")
        return Exit.USAGE
    except MeshError as error:
        env.complain(f"ambient {name}: {error}")
        return Exit.FAILURE
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else Exit.USAGE
    except BrokenPipeError:
        return _reader_is_gone(env)
    except OSError as error:
        env.complain(f"ambient {name}: {error}")
        return Exit.FAILURE
    except KeyboardInterrupt:
        return 130


def _reader_is_gone(env: Env) -> int:
    """`ambient flows | head`: end quietly, and keep the interpreter from flushing into the closed pipe at exit."""
    if env.stdout is sys.stdout:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return Exit.OK


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `ambient`."""
    return int(dispatch(real(), sys.argv[1:] if argv is None else argv))
