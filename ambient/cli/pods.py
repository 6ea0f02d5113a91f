"""`ambient pods`: the pods each node's agent knows: in the mesh or not, why not, and their older connections."""

from __future__ import annotations

import argparse

from ambient.cli.env import Env, Exit
from ambient.cli.gather import chosen, in_namespace, namespace_option, node_option, read_json
from ambient.cli.table import output_option, show

TITLES = ("NAMESPACE", "NAME", "NODE", "ADDRESS", "STATE", "DETAIL", "OLDER")


def arguments(parser: argparse.ArgumentParser) -> None:
    node_option(parser)
    namespace_option(parser)
    output_option(parser)


def run(env: Env, args: argparse.Namespace) -> int:
    reach = env.reach(args.name)
    entries = []
    for node in chosen(reach, args.node):
        answer = read_json(reach.agent(node, "/pods"), f"agent of node {node}")
        found = answer.get("pods", []) if isinstance(answer, dict) else answer
        entries += [{"node": node, **entry} for entry in in_namespace(found, args.namespace)]
    rows = [
        {
            "NAMESPACE": entry.get("namespace"),
            "NAME": entry.get("name"),
            "NODE": entry["node"],
            "ADDRESS": entry.get("addresses"),
            "STATE": entry.get("state"),
            "DETAIL": entry.get("detail"),
            "OLDER": len(entry.get("older") or []),
        }
        for entry in entries
    ]
    show(env, args.output, TITLES, rows, entries)
    return Exit.OK
