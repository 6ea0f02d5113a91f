"""`ambient connections`: open connections per pod, as each node's ztunnel holds them.

They come from the config dump, which every ztunnel has; how old they are and who is at the other end only ours tells.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

from ambient.cli.dump import Dump
from ambient.cli.env import Env, Exit
from ambient.cli.gather import Json, chosen, dump_of, namespace_option, node_option, read_json
from ambient.cli.reach import Reach
from ambient.cli.table import output_option, show

TITLES: Final = ("NODE", "POD", "DIRECTION", "SOURCE", "DESTINATION", "VIA", "PROTOCOL", "AGE")
_Key = tuple[Any, ...]
"""Namespace, pod, direction, source and where it goes."""
_NOTHING: Final[Mapping[_Key, Json]] = MappingProxyType({})
_NOT_FOUND: Final = 404


def arguments(parser: argparse.ArgumentParser) -> None:
    node_option(parser)
    namespace_option(parser)
    output_option(parser)


def run(env: Env, args: argparse.Namespace) -> int:
    reach = env.reach(args)
    found = [
        connection
        for node in chosen(reach, args.node)
        for connection in connections(dump_of(reach, node), _more(reach, node))
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
            "AGE": "-" if one["age_s"] is None else f"{one['age_s']}s",
        }
        for one in found
    ]
    show(env, args.output, TITLES, rows, found)
    return Exit.OK


def connections(dump: Dump, more: Mapping[_Key, Json] = _NOTHING) -> Iterator[dict[str, object]]:
    """One object per open connection of a node; `more`: what else is known of them."""
    for state in dump.states.values():
        info = state.get("info") or {}
        namespace, pod = info.get("namespace", ""), info.get("name", "")
        for direction in ("inbound", "outbound"):
            for entry in (state.get("connections") or {}).get(direction) or []:
                known = more.get((namespace, pod, direction, entry.get("src"), entry.get("actualDst")), {})
                yield {
                    "node": dump.node,
                    "namespace": namespace,
                    "pod": pod,
                    "direction": direction,
                    "source": entry.get("src"),
                    "destination": entry.get("originalDst") or entry.get("actualDst"),
                    "via": entry.get("actualDst"),
                    "protocol": entry.get("protocol"),
                    "peer": known.get("peer"),
                    "age_s": known.get("ageSeconds"),
                }


def _more(reach: Reach, node: str) -> Mapping[_Key, Json]:
    """What only our ztunnel says of its connections; nothing where another one answers. Raises Unavailable."""
    answer = reach.ztunnel(node, "/connections")
    if answer.status == _NOT_FOUND:
        return {}
    rows = read_json(answer, f"connections of node {node}")
    return {tuple(row.get(key) for key in ("namespace", "pod", "direction", "src", "actualDst")): row for row in rows}
