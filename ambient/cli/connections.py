"""`ambient connections`: open connections per pod, as each node's ztunnel holds them."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from ambient.cli.dump import Dump
from ambient.cli.env import Env, Exit
from ambient.cli.gather import chosen, dump_of, namespace_option, node_option
from ambient.cli.table import output_option, show

TITLES = ("NODE", "POD", "DIRECTION", "SOURCE", "DESTINATION", "VIA", "PROTOCOL")


def arguments(parser: argparse.ArgumentParser) -> None:
    node_option(parser)
    namespace_option(parser)
    output_option(parser)


def run(env: Env, args: argparse.Namespace) -> int:
    reach = env.reach(args.name)
    found = [
        connection
        for node in chosen(reach, args.node)
        for connection in connections(dump_of(reach, node))
        if args.namespace in (None, connection["namespace"])
    ]
    rows = [
        {
            "NODE": one["node"],
            "POD": f"{one['namespace']}/{one['pod']}",
            "DIRECTION": one["direction"],
            "SOURCE": one["source"],
            "DESTINATION": one["destination"],
            "VIA": one["via"],
            "PROTOCOL": one["protocol"],
        }
        for one in found
    ]
    show(env, args.output, TITLES, rows, found)
    return Exit.OK


def connections(dump: Dump) -> Iterator[dict[str, object]]:
    """One object per open connection of a node."""
    for state in dump.states.values():
        info = state.get("info") or {}
        for direction in ("inbound", "outbound"):
            for entry in (state.get("connections") or {}).get(direction) or []:
                yield {
                    "node": dump.node,
                    "namespace": info.get("namespace", ""),
                    "pod": info.get("name", ""),
                    "direction": direction,
                    "source": entry.get("src"),
                    "destination": entry.get("originalDst") or entry.get("actualDst"),
                    "via": entry.get("actualDst"),
                    "protocol": entry.get("protocol"),
                }
