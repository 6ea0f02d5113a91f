"""`ambient workloads`: the workloads that ztunnels know, as istioctl shows them."""

from __future__ import annotations

import argparse

from ambient.cli.env import Env, Exit
from ambient.cli.gather import in_namespace, merged, namespace_option, node_option
from ambient.cli.table import output_option, show

TITLES = ("NAMESPACE", "NAME", "ADDRESS", "NODE", "PROTOCOL", "IDENTITY", "STATUS", "WAYPOINT")


def arguments(parser: argparse.ArgumentParser) -> None:
    node_option(parser)
    namespace_option(parser)
    output_option(parser)


def run(env: Env, args: argparse.Namespace) -> int:
    reach = env.reach(args)
    entries = in_namespace(merged(reach, args.node, "workloads", ("namespace", "name", "uid")), args.namespace)
    rows = [
        {
            "NAMESPACE": entry.get("namespace"),
            "NAME": entry.get("name"),
            "ADDRESS": entry.get("workloadIps") or entry.get("hostname"),
            "NODE": entry.get("node"),
            "PROTOCOL": entry.get("protocol"),
            "IDENTITY": f"{entry.get('namespace')}/{entry.get('serviceAccount', 'default')}",
            "STATUS": entry.get("status"),
            "WAYPOINT": (entry.get("waypoint") or {}).get("destination"),
        }
        for entry in entries
    ]
    show(env, args.output, TITLES, rows, entries)
    return Exit.OK
