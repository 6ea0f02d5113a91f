"""`ambient pods`: the pods each agent knows: in the mesh or why not, and connections older than their enrolment.

With --cut it ends those older connections of one pod, so that they come back through the mesh.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from typing import Any

from ambient.cli.env import Env, Exit, Usage
from ambient.cli.gather import chosen, namespace_option, node_option, read_json
from ambient.cli.reach import Reach
from ambient.cli.table import output_option, show
from ambient.errors import InvalidInput

TITLES = ("NAMESPACE", "POD", "NODE", "ADDRESS", "STATE", "DETAIL", "OLDER")


def arguments(parser: argparse.ArgumentParser) -> None:
    node_option(parser)
    namespace_option(parser)
    parser.add_argument(
        "--cut", metavar="NS/POD", help="end the connections of this pod that are older than its enrolment"
    )
    output_option(parser)


def run(env: Env, args: argparse.Namespace) -> int:
    reach = env.reach(args)
    if args.cut is not None:
        return _cut(env, reach, args)
    entries = [
        entry
        for node in chosen(reach, args.node)
        for entry in _entries(node, read_json(reach.agent(node, "/pods"), f"agent of node {node}"))
        if args.namespace in (None, entry["namespace"])
    ]
    entries.sort(key=lambda entry: (entry["namespace"], entry["name"]))
    rows = [
        {
            "NAMESPACE": entry["namespace"],
            "POD": entry["name"],
            "NODE": entry["node"],
            "ADDRESS": list(entry.get("addresses", {})),
            "STATE": entry["state"],
            "DETAIL": entry["detail"],
            "OLDER": len(entry.get("older_connections", [])),
        }
        for entry in entries
    ]
    show(env, args.output, TITLES, rows, entries)
    return Exit.OK


def _entries(node: str, answer: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Pods in the mesh (or on their way), then those outside with the reason as detail."""
    for pod in answer.get("pods", []):
        detail = (
            pod.get("problem")
            or pod.get("ztunnel_says")
            or ("waits for ztunnel" if pod.get("waits_for_ztunnel") else "")
        )
        yield {**_names(pod["pod"]), "node": node, **pod, "detail": detail}
    for pod in answer.get("not_enrolled", []):
        if pod["reason"] != "runs-on-another-node":
            yield {**_names(pod["pod"]), "node": node, "state": "out", **pod, "detail": pod["reason"]}


def _cut(env: Env, reach: Reach, args: argparse.Namespace) -> int:
    """Asks the agent of the pod's node. Raises Usage, InvalidInput, Unavailable."""
    namespace, slash, name = args.cut.partition("/")
    if not namespace or not slash or not name or "/" in name:
        raise Usage(f"{args.cut!r} is no pod", "--cut", "expected NAMESPACE/POD")
    for node in chosen(reach, args.node):
        answer = read_json(reach.agent(node, "/pods"), f"agent of node {node}")
        if any(pod["pod"] == args.cut for pod in answer.get("pods", [])):
            done = read_json(reach.cut(node, args.cut), f"agent of node {node}")
            row = {"NAMESPACE": namespace, "POD": name, "NODE": node, "CUT": done["cut"]}
            entry = {"namespace": namespace, "name": name, "node": node, "cut": done["cut"]}
            show(env, args.output, tuple(row), [row], [entry])
            return Exit.OK
    raise InvalidInput(f"pod {args.cut} is not in the mesh", "--cut", "no agent that was asked has it enrolled")


def _names(pod: str) -> dict[str, str]:
    namespace, _, name = pod.partition("/")
    return {"namespace": namespace, "name": name}
