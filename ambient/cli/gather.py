"""What several commands need from the nodes: their dumps, the choice of nodes, namespace filters."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from typing import Any

from ambient.cli.dump import Dump, parse_dump
from ambient.cli.reach import Answer, Reach
from ambient.errors import InvalidInput, Refused, Unavailable

Json = Mapping[str, Any]


def node_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--node", help="only this node (default: all)")


def namespace_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-n", "--namespace", help="only this namespace")


def chosen(reach: Reach, node: str | None) -> list[str]:
    """The nodes to ask; raises Refused when there is none such."""
    nodes = list(reach.nodes())
    if node is None:
        if not nodes:
            raise Refused("no nodes", reach.label, "nothing was applied yet")
        return nodes
    if node not in nodes:
        raise Refused(f"no node {node!r}", reach.label, f"it has {', '.join(nodes) or 'none'}")
    return [node]


def dump_of(reach: Reach, node: str) -> Dump:
    """Raises Unavailable, InvalidInput."""
    return parse_dump(expect_ok(reach.ztunnel(node, "/config_dump"), f"ztunnel of node {node}"), node)


def expect_ok(answer: Answer, what: str) -> bytes:
    if answer.status != 200:
        raise Unavailable(what, f"HTTP status {answer.status}", answer.text[:200])
    return answer.body


def read_json(answer: Answer, what: str) -> Any:
    """The decoded body of a 200; raises Unavailable, InvalidInput."""
    try:
        return json.loads(expect_ok(answer, what))
    except ValueError as error:
        raise InvalidInput("not JSON", what, str(error)) from None


def merged(reach: Reach, node: str | None, key: str, identify: tuple[str, ...]) -> list[Json]:
    """Entries of a top-level list of every chosen node's dump, each once (by the fields in `identify`)."""
    seen: dict[tuple[object, ...], Json] = {}
    for one in chosen(reach, node):
        for entry in dump_of(reach, one).entries(key):
            seen.setdefault(tuple(entry.get(field) for field in identify), entry)
    return [seen[key] for key in sorted(seen, key=str)]


def in_namespace(entries: list[Json], namespace: str | None) -> list[Json]:
    return [entry for entry in entries if namespace is None or entry.get("namespace") == namespace]
