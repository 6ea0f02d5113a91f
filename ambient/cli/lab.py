"""`ambient lab VERB`: the one-machine lab. Thin: everything is done by `ambient.lab`."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Final

from ambient.cli import lab_read
from ambient.cli.env import Env, Exit, Usage
from ambient.cli.lab_read import read_manifests
from ambient.errors import InvalidInput, MeshError, Unavailable
from ambient.kube.objects import Node, Pod
from ambient.kube.records import Record
from ambient.lab.apply import shown
from ambient.lab.lab import Lab, Outcome, require_root
from ambient.lab.names import Names, default_lab, lab_name
from ambient.lab.sync import wait_acknowledged, wait_gone
from ambient.lab.teardown import down, remains

_TIMEOUT_S: Final = 60.0
_GONE_S: Final = 90.0
_ENV: Final = "setting of the mesh's parts, or of one: control, agent, ztunnel or waypoint"


def run(env: Env, args: argparse.Namespace) -> int:
    """`args.rest`: the verb and what follows it."""
    rest: list[str] = list(args.rest)
    parser = build_parser()
    if not rest:
        parser.print_usage(sys.stderr)
        return Exit.USAGE
    command: list[str] = []
    if rest[0] == "exec" and "--" in rest:
        cut = rest.index("--")
        rest, command = rest[:cut], rest[cut + 1 :]
    parsed, extra = parser.parse_known_args(rest)
    if extra and (parsed.verb != "capture" or any(word.startswith("-") for word in extra)):
        parser.error(f"unrecognized arguments: {' '.join(extra)}")
    parsed.command, parsed.extra = command, extra
    try:
        parsed.names = Names(lab_name(parsed.name))
    except InvalidInput as error:
        raise Usage(str(error)) from None
    if not {"-h", "--help"} & set(rest):
        require_root()
    verb: Callable[[Env, argparse.Namespace], int] = VERBS[parsed.verb]
    return verb(env, parsed)


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="ambient lab",
        description="nodes and pods from Kubernetes YAML, as network namespaces on this machine (as root)",
        allow_abbrev=False,
    )
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB")

    def verb(name: str, summary: str, *examples: str) -> argparse.ArgumentParser:
        added = verbs.add_parser(
            name,
            help=summary,
            description=summary,
            epilog="examples:\n" + "\n".join(f"  {example}" for example in examples),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )
        usual = default_lab(os.environ)
        added.add_argument("--name", default=usual, metavar="LAB", help=f"which lab (default: {usual})")
        return added

    def waits(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--timeout", type=_seconds, default=_TIMEOUT_S, metavar="S", help="wait at most this long")
        parser.add_argument("--no-wait", action="store_true", help="do not wait until every node has acknowledged")

    up = verb("up", "make a lab, or mend and extend the one that is there", "ambient lab up app.yaml")
    up.add_argument("files", nargs="*", metavar="FILE|DIR", help="objects to start with")
    up.add_argument("--no-mesh", action="store_true", help="plain Kubernetes networking, no mesh at all")
    up.add_argument("--env", action="append", default=[], metavar="[PART:]KEY=VALUE", help=_ENV)
    waits(up)
    apply = verb("apply", "create or change objects, as kubectl does", "ambient lab apply --name demo -f app.yaml")
    apply.add_argument("-f", dest="files", action="append", required=True, metavar="FILE", help="file, folder or -")
    waits(apply)
    delete = verb("delete", "delete the objects of a file", "ambient lab delete -f app.yaml")
    delete.add_argument("-f", dest="files", action="append", required=True, metavar="FILE", help="file, folder or -")
    waits(delete)
    label = verb("label", "label a namespace", "ambient lab label namespace shop istio.io/dataplane-mode=ambient")
    label.add_argument("kind", choices=("namespace", "node"))
    label.add_argument("object", metavar="NAME")
    label.add_argument("changes", nargs="+", metavar="KEY=VALUE|KEY-", type=_label)
    label.add_argument("--overwrite", action="store_true", help="change labels that have another value")
    waits(label)
    lab_read.add_verbs(verb)
    reboot = verb("reboot", "a node crashes and comes back", "ambient lab reboot n1")
    reboot.add_argument("node")
    waits(reboot)
    verb("down", "remove a lab and everything it made", "ambient lab down --name demo")
    return parser


def _seconds(text: str) -> float:
    value = float(text.removesuffix("s"))
    if not 0 <= value < 1e6:
        raise ValueError(text)
    return value


def _label(text: str) -> str:
    if "=" not in text and not text.endswith("-"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither KEY=VALUE nor KEY-")
    return text


def _pair(text: str) -> tuple[str, str]:
    key, separator, value = text.partition("=")
    part, _, name = key.rpartition(":")
    if not separator or not name or part not in ("", "control", "agent", "ztunnel", "waypoint"):
        raise Usage("not [control:|agent:|ztunnel:|waypoint:]KEY=VALUE", repr(text))
    return key, value


def _print(env: Env, outcomes: Iterable[Outcome]) -> bool:
    """Each on its line, refusals on stderr; True when none was refused."""
    good = True
    for outcome in outcomes:
        if outcome.error:
            env.complain(f"error: {outcome}")
            good = False
        else:
            env.line(str(outcome))
    return good


def _warn(env: Env, lab: Lab, applied: Iterable[Record]) -> None:
    """What the mesh says of these objects that is not "accepted": an enforced policy may be less than was meant."""
    known = lab.records().by_key
    for record in applied:
        found = known.get(record.key)
        for condition in () if found is None or isinstance(found, Pod) else found.conditions:
            if condition.status == "False" or condition.reason == "UnsupportedValue":
                env.complain(f"warning: {shown(record)}: {condition.message or condition.reason}")


def _wait(env: Env, lab: Lab, args: argparse.Namespace) -> bool:
    if args.no_wait:
        return True
    try:
        wait_acknowledged(lab, args.timeout)
    except Unavailable as error:
        env.complain(f"error: {error}")
        return False
    return True


def up(env: Env, args: argparse.Namespace) -> int:
    pairs = [_pair(text) for text in args.env]
    records = read_manifests(args.files)
    exists = args.names.settings.exists()
    if not exists and remains(args.names):
        down(args.names)  # what a crash left would be in the way
    lab = Lab.make(args.names, mesh=not args.no_mesh, env=pairs)
    if exists and (args.no_mesh == lab.settings.mesh or (pairs and tuple(pairs) != lab.settings.env)):
        raise MeshError(f"lab {args.names.lab!r} is up with other settings", why="take it down first")
    good = _print(env, lab.apply(records))
    good = _wait(env, lab, args) and good
    _warn(env, lab, records)
    nodes = len(lab.records().of(Node))
    env.line(f"lab {args.names.lab} is up{' already' if exists else ''}: {nodes} node{'s' if nodes != 1 else ''}")
    return Exit.OK if good else Exit.FAILURE


def apply(env: Env, args: argparse.Namespace) -> int:
    lab = Lab(args.names)
    records = read_manifests(args.files)
    good = _print(env, lab.apply(records))
    good = _wait(env, lab, args) and good
    _warn(env, lab, records)
    return Exit.OK if good else Exit.FAILURE


def delete(env: Env, args: argparse.Namespace) -> int:
    lab = Lab(args.names)
    outcomes, left = lab.delete(read_manifests(args.files))
    good = _print(env, outcomes)
    if args.no_wait and not any(record.kind == "Namespace" for record in left):
        return Exit.OK if good else Exit.FAILURE
    wait_gone(lab, left, max(args.timeout, _GONE_S))
    lab.finish_delete(left)
    return Exit.OK if _wait(env, lab, args) and good else Exit.FAILURE


def label(env: Env, args: argparse.Namespace) -> int:
    lab = Lab(args.names)
    env.line(str(lab.label(args.kind.capitalize(), args.object, args.changes, overwrite=args.overwrite)))
    return Exit.OK if _wait(env, lab, args) else Exit.FAILURE


def reboot(env: Env, args: argparse.Namespace) -> int:
    lab = Lab(args.names)
    lab.reboot(args.node)
    env.line(f"node/{args.node} rebooted")
    return Exit.OK if _wait(env, lab, args) else Exit.FAILURE


def take_down(env: Env, args: argparse.Namespace) -> int:
    found = down(args.names)
    env.line(f"lab {args.names.lab} is down" if found else f"lab {args.names.lab} was not there")
    return Exit.OK


VERBS: Final[Mapping[str, Callable[[Env, argparse.Namespace], int]]] = MappingProxyType(
    {
        "up": up,
        "apply": apply,
        "delete": delete,
        "label": label,
        "reboot": reboot,
        "down": take_down,
        "exec": lab_read.execute,
        "logs": lab_read.logs,
        "status": lab_read.status,
        "capture": lab_read.capture,
    }
)

__all__ = ["VERBS", "build_parser", "run"]
