"""`ambient flows`: connections as ztunnels saw them open, close, be denied or fail; with --follow as it happens.

As each node's agent tells it, there is besides what the kernel refused by itself, data that it saw in the clear, what
does not go by ztunnel, and ztunnel's own connections to the network with their round trips.
Every connection between two nodes of the mesh shows twice: outbound at its client's node, inbound at its server's.
"""

from __future__ import annotations

import argparse
import queue
import threading
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from types import MappingProxyType
from typing import Final

from ambient.cli.env import Env, Exit, Usage
from ambient.cli.gather import chosen, node_option
from ambient.cli.reach import Reach
from ambient.cli.table import output_option
from ambient.errors import InvalidInput, MeshError
from ambient.flows.format import header, row
from ambient.flows.query import parse_query
from ambient.flows.record import Flow, from_json, to_json
from ambient.model.outcome import NoRoute, Reason

_Event = Flow | MeshError | None
"""What a reader thread reports: a flow, its failure, or None for "this node is done"."""

_ASK_S: Final = 1.0
"""How often an agent is asked for what is new."""
_CLOSED: Final[Mapping[str, tuple[str, ...]]] = MappingProxyType(
    {
        "direction": ("inbound", "outbound"),
        "security": ("mutual_tls", "unknown"),
        "flags": (
            *("-", "DENY", "CONNECT", "TLS_FAILURE", "H2_HANDSHAKE_FAILURE"),
            *("NETWORK_POLICY", "IDENTITY_ERROR", "CERT_REVOKED"),
        ),
        "reason": (
            *(reason.value for reason in (*Reason, *NoRoute)),
            *("bad-request", "illegal-port", "ip-mismatch", "no-director", "no-service-address"),
            *("pod-budget", "unknown-workload", "unresolved-name"),
            "clear-text",
            *("aborted", "refused", "reset", "unanswered"),
        ),
        "protocol": ("tcp", "udp", "icmp"),
    }
)
"""Keys whose values ztunnel takes from a fixed set: any other value is a slip, and an empty table would hide it."""


def arguments(parser: argparse.ArgumentParser) -> None:
    node_option(parser)
    output_option(parser)
    parser.add_argument("-f", "--follow", action="store_true", help="go on with new flows until interrupted")
    parser.add_argument("--last", type=int, default=100, metavar="N", help="begin with the last N of each node (100)")
    parser.add_argument(
        "terms",
        nargs="*",
        metavar="KEY=VALUE",
        help="only flows for which all of these hold; KEY!=VALUE negates, VALUE may be a comma list. Keys: namespace "
        "pod from to event direction node principal service port reason policy flags security protocol",
    )


def run(env: Env, args: argparse.Namespace) -> int:
    """Table lines, or with -o json one JSON object per line."""
    try:
        wanted = parse_query(args.terms)
    except InvalidInput as error:
        raise Usage(error.what, error.where, error.why) from None
    reach = env.reach(args)
    for term in args.terms:
        _check(term, reach)
    if args.last < 0:
        raise Usage("--last is negative", str(args.last))
    nodes = chosen(reach, args.node)
    flows = _following(env, reach, nodes, args.last) if args.follow else _recent(env, reach, nodes, args.last)
    if args.output == "table":
        env.line(header())
    for flow in flows:
        if wanted(flow):
            env.line(to_json(flow) if args.output == "json" else row(flow))
            env.stdout.flush()
    return Exit.OK


def _check(term: str, reach: Reach) -> None:
    """Raises Usage for a value outside its key's fixed set or the mesh's nodes; `term` is well-formed."""
    key, _, value = term.partition("=")
    key = key.removesuffix("!")
    allowed = tuple(reach.nodes()) if key == "node" else _CLOSED.get(key)
    if allowed is not None and not set(value.split(",")) <= set(allowed):
        raise Usage("not a flow filter", repr(term), f"{key} is one of {', '.join(allowed)}")


def _recent(env: Env, reach: Reach, nodes: list[str], last: int) -> list[Flow]:
    found = [flow for node in nodes for flow in _read(reach, node, f"/flows?last={last}")]
    for node in nodes:
        try:
            found += _of_kernel(reach, node, f"/flows?last={last}")
        except MeshError as error:
            env.complain(f"ambient flows: what the kernel refused is not shown: {error}")
    return sorted(found, key=lambda flow: flow.time_unix)


def _read(reach: Reach, node: str, path: str) -> Iterator[Flow]:
    for line in reach.lines(node, path):
        if line.strip():
            yield from_json(line.decode(errors="replace"), f"flows of node {node}")


def _of_kernel(reach: Reach, node: str, path: str) -> list[Flow]:
    """What a node's agent tells; nothing where the agent is not ours."""
    answer = reach.agent(node, path)
    if answer.status != HTTPStatus.OK:
        return []
    where = f"flows of the agent of node {node}"
    return [from_json(line, where) for line in answer.text.splitlines() if line.strip()]


def _following(env: Env, reach: Reach, nodes: list[str], last: int) -> Iterator[Flow]:
    """Flows of all nodes as they arrive; ends when every node is gone, having said so."""
    events: queue.Queue[_Event] = queue.Queue()
    for node in nodes:
        threading.Thread(target=_report, args=(reach, node, last, events), daemon=True, name=f"flows-{node}").start()
        threading.Thread(target=_ask, args=(reach, node, last, events), daemon=True, name=f"kernel-{node}").start()
    running = len(nodes)
    while running:
        match events.get():
            case None:
                running -= 1
            case Flow() as flow:
                yield flow
            case MeshError() as error:
                env.complain(f"ambient flows: {error}")


def _report(reach: Reach, node: str, last: int, events: queue.Queue[_Event]) -> None:
    try:
        for flow in _read(reach, node, f"/flows?follow=1&last={last}"):
            events.put(flow)
    except MeshError as error:
        events.put(error)
    finally:
        events.put(None)


def _ask(reach: Reach, node: str, last: int, events: queue.Queue[_Event]) -> None:
    """Asks the agent again and again; ends, having said so, when it does not answer."""
    after, pause = 0, threading.Event()
    try:
        while True:
            for flow in _of_kernel(reach, node, f"/flows?last={last}&after={after}"):
                if flow.sequence > after:
                    after = flow.sequence
                    events.put(flow)
            pause.wait(_ASK_S)
    except MeshError as error:
        events.put(error)
