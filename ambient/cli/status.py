"""`ambient status`: every node at a glance. Parts that do not answer show as such; it fails only when none does."""

from __future__ import annotations

import argparse
import re
from collections.abc import Mapping, Sequence

from ambient.cli import health
from ambient.cli.connections import connections
from ambient.cli.env import Env, Exit
from ambient.cli.gather import chosen, dump_of, node_option
from ambient.cli.reach import Reach
from ambient.cli.table import output_option, show
from ambient.errors import MeshError

TITLES = ("NODE", "AGENT", "ZTUNNEL", "SYNC", "CAPTURE", "PODS", "CONNECTIONS", "WORKLOADS", "SERVICES", "POLICIES")


def arguments(parser: argparse.ArgumentParser) -> None:
    node_option(parser)
    output_option(parser)


def run(env: Env, args: argparse.Namespace) -> int:
    reach = env.reach(args)
    control = health.control(reach)
    syncs = health.syncs_of(reach) if control.healthy else None
    nodes = [_node(reach, node, syncs) for node in chosen(reach, args.node)]
    if args.output == "table":
        state = "ready" if control.healthy else f"NOT READY ({control.detail})"
        revision = f", revision {' '.join(str(sync.get('observed')) for sync in syncs)}" if syncs else ""
        env.line(f"{reach.label}: control plane {state}{revision}")
        for one in health.waypoints(syncs or ()):
            env.line(f"{one.part}: {one.detail}")
    rows = [{title: node[title.lower()] for title in TITLES} for node in nodes]
    document = {
        "mesh": reach.label,
        "control": {"ready": control.healthy, "detail": control.detail, "sync": syncs},
        "nodes": nodes,
    }
    show(env, args.output, TITLES, rows, document)
    return Exit.OK


def _node(reach: Reach, node: str, syncs: Sequence[Mapping[str, object]] | None) -> dict[str, object]:
    agent, ztunnel, synced = health.agent(reach, node), health.ztunnel(reach, node), health.synced(syncs, node)
    captured = health.datapath(reach, node)
    found: dict[str, object] = {
        "node": node,
        "agent": agent.detail,
        "capture": captured.detail.partition(":")[0] if captured is not None else "",
        "datapath": captured.detail if captured is not None else "",
        "ztunnel": ztunnel.detail,
        "sync": synced.detail,
        "healthy": bool(agent.healthy and ztunnel.healthy and synced.healthy),
    }
    try:
        dump = dump_of(reach, node)
    except MeshError:
        return found | dict.fromkeys(("workers", "pods", "connections", "workloads", "services", "policies"))
    # In short, one word for each form that runs.
    forms = "+".join(dict.fromkeys(re.findall(r"(?:^|, )(compiled|interpreted)", dump.workers)))
    return found | {
        "ztunnel": f"{ztunnel.detail}, {forms}" if forms else ztunnel.detail,
        "workers": dump.workers,
        "pods": len(dump.states),
        "connections": sum(1 for _ in connections(dump)),
        "workloads": len(dump.workloads),
        "services": len(dump.services),
        "policies": len(dump.policies),
    }
