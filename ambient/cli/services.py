"""`ambient services`: the services that ztunnels know, with healthy and all endpoints."""

from __future__ import annotations

import argparse

from ambient.cli.env import Env, Exit
from ambient.cli.gather import Json, in_namespace, merged, namespace_option, node_option
from ambient.cli.table import output_option, show

TITLES = ("NAMESPACE", "NAME", "HOSTNAME", "VIP", "PORTS", "ENDPOINTS", "WAYPOINT")


def arguments(parser: argparse.ArgumentParser) -> None:
    node_option(parser)
    namespace_option(parser)
    output_option(parser)


def run(env: Env, args: argparse.Namespace) -> int:
    reach = env.reach(args)
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
                "PORTS": [f"{port}->{_target(entry, port)}" for port in entry.get("ports") or {}],
                "ENDPOINTS": f"{healthy}/{len(endpoints)}",
                "WAYPOINT": (entry.get("waypoint") or {}).get("destination"),
            }
        )
    show(env, args.output, TITLES, rows, entries)
    return Exit.OK


def _target(entry: Json, port: str) -> str:
    """The port at the pods. 0 stands for a named one, which every pod may have elsewhere: then where they have it."""
    if entry["ports"][port]:
        return str(entry["ports"][port])
    own = {(endpoint.get("port") or {}).get(port) for endpoint in (entry.get("endpoints") or {}).values()}
    return "/".join(str(number) for number in sorted(number for number in own if number)) or "(named)"
