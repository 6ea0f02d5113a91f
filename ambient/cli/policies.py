"""`ambient policies`: the authorization policies that ztunnels hold, and whom each one selects."""

from __future__ import annotations

import argparse

from ambient.cli.env import Env, Exit
from ambient.cli.gather import chosen, dump_of, in_namespace, merged, namespace_option, node_option
from ambient.cli.table import output_option, show
from ambient.model.policy import PolicyScope

TITLES = ("NAMESPACE", "NAME", "ACTION", "SCOPE", "RULES", "SELECTS", "DRY-RUN")


def arguments(parser: argparse.ArgumentParser) -> None:
    node_option(parser)
    namespace_option(parser)
    output_option(parser)


def run(env: Env, args: argparse.Namespace) -> int:
    reach = env.reach(args)
    entries = in_namespace(merged(reach, args.node, "policies", ("namespace", "name")), args.namespace)
    selects: dict[str, int] = {}
    for node in chosen(reach, args.node)[:1]:
        for workload in dump_of(reach, node).workloads:
            for key in workload.authorization_policies:
                selects[key] = selects.get(key, 0) + 1
    rows = [
        {
            "NAMESPACE": entry.get("namespace"),
            "NAME": entry.get("name"),
            "ACTION": entry.get("action"),
            "SCOPE": entry.get("scope"),
            "RULES": len(entry.get("rules") or []),
            "SELECTS": _selects(entry.get("scope"), selects.get(f"{entry.get('namespace')}/{entry.get('name')}", 0)),
            "DRY-RUN": bool(entry.get("dryRun")),
        }
        for entry in entries
    ]
    show(env, args.output, TITLES, rows, entries)
    return Exit.OK


def _selects(scope: object, count: int) -> str:
    if scope == PolicyScope.WORKLOAD_SELECTOR.name.title().replace("_", ""):
        return "1 workload" if count == 1 else f"{count} workloads"
    return "the mesh" if scope == "Global" else "its namespace"
