"""The verbs of `ambient lab` that change nothing: exec, logs, status, capture; and reading manifests."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from ambient.cli.env import Env, Exit, Usage
from ambient.errors import InvalidInput, Refused, Unavailable
from ambient.kube.objects import Node, Pod, Record
from ambient.kube.yaml import parse_each
from ambient.lab import cgroup, launch
from ambient.lab import status as lab_status
from ambient.lab.kubelet.pod import place_of
from ambient.lab.lab import Lab
from ambient.lab.names import COMPONENTS

_SUFFIXES = (".yaml", ".yml", ".json")


class AddVerb(Protocol):
    def __call__(self, name: str, summary: str, *examples: str) -> argparse.ArgumentParser: ...


def add_verbs(verb: AddVerb) -> None:
    """The parsers of this module's verbs."""
    execute = verb("exec", "run a command in a pod; its streams and exit code", "ambient lab exec shop/web -- ip addr")
    execute.add_argument("pod", metavar="NAMESPACE/POD")
    execute.add_argument("-c", dest="container", metavar="CONTAINER", help="whose environment (default: the first)")
    logs = verb(
        "logs", "the log of a component or of a pod", "ambient lab logs n1 ztunnel", "ambient lab logs shop/web"
    )
    logs.add_argument("what", nargs="+", metavar="NODE COMPONENT | control | NAMESPACE/POD")
    logs.add_argument("-c", dest="container", metavar="CONTAINER")
    logs.add_argument("-f", dest="follow", action="store_true", help="go on with what is added")
    logs.add_argument("--tail", type=int, metavar="N", help="only the last N lines")
    status = verb("status", "nodes, pods and components", "ambient lab status -o json")
    status.add_argument("-o", "--output", choices=("table", "json"), default="table")
    capture = verb(
        "capture", "packets of a node, with tcpdump", "ambient lab capture n1 --write n1.pcap tcp port 15008"
    )
    capture.add_argument("node")
    capture.add_argument("--write", metavar="FILE", help="pcap file instead of text (- is stdout)")
    capture.add_argument("--interface", default="eth0", metavar="IF", help="default eth0, the cable; `any` for all")
    capture.add_argument("--count", type=int, metavar="N", help="end after N packets")
    capture.epilog = f"{capture.epilog}\n\nThe other words are a filter as tcpdump takes it."


def read_manifests(paths: Iterable[str]) -> list[Record]:
    """All objects of files, folders and "-" (stdin). Raises InvalidInput with *everything* that is wrong in them."""
    records: list[Record] = []
    problems: list[str] = []
    for path in _files(paths):
        try:
            text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            why = error.strerror or str(error) if isinstance(error, OSError) else f"not UTF-8 text: {error.reason}"
            raise InvalidInput("nothing was changed", path, why) from None
        before = len(records) + len(problems)
        for outcome in parse_each(text, "stdin" if path == "-" else path):
            if isinstance(outcome, InvalidInput):
                problems.append(str(outcome))
            else:
                records.append(outcome)
        if len(records) + len(problems) == before:
            problems.append(f"{path}: no objects in it")
    seen: set[str] = set()
    for record in records:
        if record.key in seen:
            problems.append(f"{record.key}: declared twice")
        seen.add(record.key)
    if problems:
        raise InvalidInput("nothing was changed", why="\n  ".join(["", *problems]).lstrip("\n"))
    return records


def _files(paths: Iterable[str]) -> list[str]:
    found = []
    for path in paths:
        if path != "-" and Path(path).is_dir():
            inside = sorted(str(p) for p in Path(path).iterdir() if p.suffix in _SUFFIXES and p.is_file())
            if not inside:
                raise InvalidInput(path, why=f"no file in it ends with {', '.join(_SUFFIXES)}")
            found += inside
        else:
            found.append(path)
    return found


def execute(env: Env, args: argparse.Namespace) -> int:
    if not args.command:
        raise Usage("nothing to run", why="ambient lab exec NAMESPACE/POD -- COMMAND ...")
    lab = Lab(args.names)
    env.become(exec_argv(lab, lab.pod(args.pod), args.command, args.container))


def exec_argv(lab: Lab, pod: Pod, command: list[str], container: str | None = None) -> list[str]:
    """The command line that runs `command` in the pod; raises Refused when there is no such container or no pod yet."""
    chosen = next((c for c in pod.containers if container in (None, c.name)), None)
    if chosen is None:
        raise Refused(f"pod {pod.namespace}/{pod.name}", why=f"has no container {container!r}")
    if not (lab.names.pod_folder(pod.uid) / "resolv.conf").exists() or pod.phase != "Running":
        raise Unavailable(f"pod {pod.namespace}/{pod.name}", why=f"does not run (it is {pod.phase or 'Pending'})")
    place = place_of(pod, chosen, lab.settings)
    variables = [f"{key}={value}" for key, value in launch.environment(pod, chosen).items()]
    return launch.in_pod(place, ["env", "-i", *variables, *command])


def logs(env: Env, args: argparse.Namespace) -> int:
    if not _is_log(args.what):
        raise Usage("no such log", " ".join(args.what), "expected NODE ztunnel|agent|kubelet|control, or NAMESPACE/POD")
    lab = Lab(args.names)
    path = _log_of(lab, args.what, args.container)
    if not path.exists():
        raise Unavailable("no log yet", " ".join(args.what))
    options = ["-n", str(args.tail) if args.tail is not None else "+1"]
    env.become(["tail", *options, *(["-F"] if args.follow else []), "--", str(path)])


def _is_log(what: list[str]) -> bool:
    match what:
        case ["supervisor" | "control"] | [_, "control"]:
            return True
        case [pod]:
            return "/" in pod
        case [_, component]:
            return component in COMPONENTS
    return False


def _log_of(lab: Lab, what: list[str], container: str | None) -> Path:
    """`what` has passed `_is_log`."""
    match what:
        case ["supervisor"]:
            return lab.names.supervisor_log
        case ["control"] | [_, "control"]:
            return lab.names.control_log
        case [pod]:
            record = lab.pod(pod)
            name = container or record.containers[0].name
            if name not in [c.name for c in record.containers]:
                raise Refused(f"pod {pod}", why=f"has no container {name!r}")
            return lab.names.pod_log(record.namespace, record.name, name)
    node, component = what
    if lab.records().find(Node, "", node) is None:
        raise Refused(f'nodes "{node}" not found')
    return lab.names.log(node, component)


def status(env: Env, args: argparse.Namespace) -> int:
    state = lab_status.status(Lab(args.names))
    env.line(json.dumps(state, indent=2) if args.output == "json" else lab_status.table(state))
    return Exit.OK


def capture(env: Env, args: argparse.Namespace) -> int:
    lab = Lab(args.names)
    if lab.records().find(Node, "", args.node) is None:
        raise Refused(f'nodes "{args.node}" not found')
    options = ["-i", args.interface, "-U", "-Z", "root"]
    options += ["-w", args.write] if args.write else ["-n", "-l"]
    options += ["-c", str(args.count)] if args.count is not None else []
    command = ["tcpdump", *options, *args.extra]
    group = cgroup.place(lab.names.cgroup("capture"))  # made by `up`: after a `down` nothing may be made again
    env.become(launch.in_cgroup(group, launch.in_netns(lab.names.node(args.node), command)))
