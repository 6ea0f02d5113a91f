"""`ambient services`: the services that ztunnels know, with healthy and all endpoints."""

from __future__ import annotations

import argparse

from ambient.cli.env import Env, Exit
from ambient.cli.gather import in_namespace, merged, namespace_option, node_option
from ambient.cli.table import output_option, show

TITLES = ("NAMESPACE", "NAME", "HOSTNAME", "VIP", "PORTS", "ENDPOINTS", "WAYPOINT")


def arguments(parser: argparse.ArgumentParser) -> None:
    node_option(parser)
    namespace_option(parser)
    output_option(parser)


def run(env: Env, args: argparse.Namespace) -> int:
    reach = env.reach(args.name)
    entries = in_namespace(merged(reach, args.node, "services", ("namespace", "hostname")), args.namespace)
    rows = []
    for entry in entries:
        endpoints = (entry.get("endpoints") or {}).values()
        healthy = sum(endpoint.get("status", "Healthy") == "Healthy" for endpoint in endpoints)
        rows.append(
            {
                "NAMESPACE": entry.get("namespace"),
                "NAME": entry.get("name"),
                "HOSTNAME": entry.get("hostname"),
                "VIP": [vip.partition("/")[2] for vip in entry.get("vips") or []],
                "PORTS": [f"{port}->{target}" for port, target in (entry.get("ports") or {}).items()],
                "ENDPOINTS": f"{healthy}/{len(endpoints)}",
                "WAYPOINT": (entry.get("waypoint") or {}).get("destination"),
            }
        )
    show(env, args.output, TITLES, rows, entries)
    return Exit.OK
