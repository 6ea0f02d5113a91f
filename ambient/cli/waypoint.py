"""`ambient waypoint VERB`: the Gateways that are waypoints, made, looked at and deleted; in a lab or a cluster.

Flags are istioctl's. `--name` is the waypoint's, so a lab is chosen with `--lab`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar

import yaml

from ambient.cli.env import Env, Exit, Usage
from ambient.cli.table import show
from ambient.cli.which import api
from ambient.errors import InvalidInput, Refused, Unavailable
from ambient.kube import syntax
from ambient.kube.api.client import ApiClient
from ambient.kube.api.failure import NotThere
from ambient.kube.gateways import VERSIONS
from ambient.kube.networking import Gateway
from ambient.kube.objects import Namespace, Record, parse_object, resources
from ambient.lab.lab import Lab, Outcome
from ambient.lab.names import Names, default_lab, lab_name
from ambient.lab.sync import wait_gone
from ambient.model.address import HBONE_PORT
from ambient.waypoint.deploy import CLASS, HBONE_PROTOCOL

T = TypeVar("T")

VERBS: Final = ("apply", "status", "delete", "generate")
FOR: Final = "istio.io/waypoint-for"
USE: Final = "istio.io/use-waypoint"
TITLES: Final = ("NAMESPACE", "NAME", "PROGRAMMED", "DETAIL")
_STEP_S: Final = 0.2


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("verb", choices=VERBS)
    parser.add_argument("names", nargs="*", metavar="NAME", help="of delete and status: which waypoints")
    parser.add_argument("--lab", metavar="LAB", help="the lab of this name (default: as of other commands)")
    parser.add_argument("--context", metavar="CONTEXT", help="the cluster of this context of the kubeconfig")
    parser.add_argument("--kubeconfig", metavar="FILE", help="instead of $KUBECONFIG or ~/.kube/config")
    parser.add_argument("-n", "--namespace", default="default", help="of the waypoint (default: default)")
    parser.add_argument("-A", "--all-namespaces", action="store_true", help="of status: all of them")
    parser.add_argument("--name", default="waypoint", help="of the waypoint (default: waypoint)")
    parser.add_argument("--for", dest="traffic", choices=("service", "workload", "all", "none"), help="whose traffic")
    parser.add_argument("--enroll-namespace", action="store_true", help="have the namespace use it")
    parser.add_argument("--overwrite", action="store_true", help="of --enroll-namespace: instead of another one")
    parser.add_argument("--all", action="store_true", help="of delete: every waypoint of the namespace")
    parser.add_argument("--wait", action="store_true", help="until it is programmed")
    parser.add_argument("--timeout", type=float, default=90.0, metavar="S", help="how long to wait (default: 90)")
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table", help="of status")


def run(env: Env, args: argparse.Namespace) -> int:
    """Raises Usage, InvalidInput, Refused, Unavailable."""
    _check(args)
    if args.verb == "generate":
        env.line(yaml.safe_dump(manifest(args.namespace, args.name, args.traffic or ""), sort_keys=False).rstrip())
        return Exit.OK
    lab = _lab(args, env.environ)
    if lab is not None:
        return _in_lab(env, args, lab)
    return asyncio.run(_in_cluster(env, args, api(args, env.environ)))


def manifest(namespace: str, name: str, traffic: str = "") -> dict[str, Any]:
    """The Gateway. `traffic` "": that of services, or what the class says."""
    metadata: dict[str, Any] = {"name": name, "namespace": namespace}
    if traffic:
        metadata["labels"] = {FOR: traffic}
    listener = {"name": "mesh", "port": HBONE_PORT, "protocol": HBONE_PROTOCOL}
    spec = {"gatewayClassName": CLASS, "listeners": [listener]}
    return {"apiVersion": VERSIONS[0], "kind": "Gateway", "metadata": metadata, "spec": spec}


def _check(args: argparse.Namespace) -> None:
    for option, value, check in (
        ("--namespace", args.namespace, syntax.dns_label),
        ("--name", args.name, syntax.dns_label_1035),
    ):
        if complaint := check(value):
            raise Usage(option, why=complaint)
    if args.names and args.verb not in ("delete", "status"):
        raise Usage(f"{args.verb} takes no names", why="give --name")
    if args.enroll_namespace and args.traffic == "none":
        raise Usage("--enroll-namespace", "--for none", "a namespace is enrolled for its services or its workloads")
    if args.verb == "delete" and args.all and args.names:
        raise Usage("--all", why="and names: give one of them")


def _lab(args: argparse.Namespace, environ: Mapping[str, str]) -> Lab | None:
    """The lab that the options mean, None for a cluster."""
    if args.lab is not None:
        return Lab(Names(lab_name(args.lab)))
    usual = Names(lab_name(default_lab(environ)))
    return None if args.context or args.kubeconfig or not usual.folder.exists() else Lab(usual)


def _ours(gateways: Iterable[Gateway], args: argparse.Namespace) -> list[Gateway]:
    """The waypoints that are asked for, by name; raises Refused when one that is named is none."""
    anywhere = args.verb == "status" and args.all_namespaces
    found = [one for one in gateways if one.class_name == CLASS and (anywhere or one.namespace == args.namespace)]
    every = args.all or (args.verb == "status" and not args.names)
    wanted = args.names or ([] if every else [args.name])
    missing = set(wanted) - {one.name for one in found}
    if missing:
        raise Refused(f'waypoints "{", ".join(sorted(missing))}" not found', args.namespace)
    return [one for one in sorted(found, key=lambda one: one.key) if every or one.name in wanted]


def _programmed(gateway: Gateway) -> tuple[str, str]:
    """Whether it serves ("True", "False", "Unknown"), and what is in the way."""
    told = {one.type: one for one in gateway.conditions}
    for name in ("Accepted", "Programmed"):
        if name not in told:
            return "Unknown", "nobody has looked at it yet"
        if told[name].status != "True":
            return told[name].status, told[name].message or told[name].reason
    configured = told.get("ambient.mesh/Configured")
    return "True", configured.message if configured is not None and configured.status != "True" else ""


def _tell(env: Env, args: argparse.Namespace, found: Sequence[Gateway]) -> int:
    rows: list[dict[str, object]] = []
    for one in found:
        values = (one.namespace, one.name, *_programmed(one))
        rows.append(dict(zip(TITLES, values, strict=True)))
    if args.output == "json":
        env.line(json.dumps([{title.lower(): value for title, value in row.items()} for row in rows], indent=2))
    else:
        show(env, args.output, TITLES, rows, rows)
    return Exit.OK if rows and all(row["PROGRAMMED"] == "True" for row in rows) else Exit.NEGATIVE


def _in_lab(env: Env, args: argparse.Namespace, lab: Lab) -> int:
    def gateways() -> Iterable[Gateway]:
        return lab.records().of(Gateway)

    if args.verb == "status":
        return _tell(env, args, _ours(gateways(), args))
    if args.verb == "delete":
        outcomes, left = lab.delete(_ours(gateways(), args))
        good = _outcomes(env, outcomes)
        wait_gone(lab, left, args.timeout)
        lab.finish_delete(left)
        return Exit.OK if good else Exit.FAILURE
    record = parse_object(manifest(args.namespace, args.name, args.traffic or ""), "waypoint")
    if lab.records().find(Namespace, "", args.namespace) is None:
        raise Refused(f'namespaces "{args.namespace}" not found')
    if not _outcomes(env, lab.apply([record])):
        return Exit.FAILURE
    # Who is enrolled before it serves is refused until it does.
    if args.wait:
        _wait(env, args, lambda: lab.records().find(Gateway, args.namespace, args.name))
    if args.enroll_namespace:
        env.line(str(lab.label("Namespace", args.namespace, [f"{USE}={args.name}"], overwrite=args.overwrite)))
    return Exit.OK


def _outcomes(env: Env, outcomes: Iterable[Outcome]) -> bool:
    good = True
    for one in outcomes:
        (env.complain if one.error else env.line)(str(one))
        good = good and not one.error
    return good


def _wait(env: Env, args: argparse.Namespace, look: Callable[[], Gateway | None]) -> None:
    end, why = env.now() + args.timeout, ""
    while env.now() < end:
        found = look()
        state, why = _programmed(found) if found is not None else ("", "it is gone")
        if state == "True":
            return
        env.wait(_STEP_S)
    raise Unavailable("not programmed", f"waypoint {args.namespace}/{args.name}", why)


async def _in_cluster(env: Env, args: argparse.Namespace, client: ApiClient) -> int:
    async with client:
        return await in_cluster(env, args, client)


async def in_cluster(env: Env, args: argparse.Namespace, client: ApiClient) -> int:
    """Raises Refused, Unavailable."""
    place = resources(Gateway.kind)[0]
    where = "" if args.verb == "status" and args.all_namespaces else args.namespace
    if args.verb in ("status", "delete"):
        listed = await _there(client.list(place, where), "gateways.gateway.networking.k8s.io")
        found = _ours((one for one in map(_read, listed.get("items") or ()) if one is not None), args)
        if args.verb == "status":
            return _tell(env, args, found)
        for one in found:
            await client.delete(place, one.name, one.namespace, uid=one.uid)
            env.line(f"waypoint {one.namespace}/{one.name} deleted")
        return Exit.OK
    spaces = resources(Namespace.kind)[0]
    space = await _there(client.get(spaces, args.namespace), f'namespaces "{args.namespace}"')
    body = manifest(args.namespace, args.name, args.traffic or "")
    await client.patch(place, args.name, body, args.namespace, form="apply", force=True)
    env.line(f"waypoint {args.namespace}/{args.name} applied")
    end = env.now() + args.timeout
    while args.wait:
        seen = _read(await client.get(place, args.name, args.namespace))
        state, why = _programmed(seen) if seen is not None else ("", "it cannot be read")
        if state == "True":
            break
        if env.now() >= end:
            raise Unavailable("not programmed", f"waypoint {args.namespace}/{args.name}", why)
        await asyncio.sleep(_STEP_S)
    if args.enroll_namespace:
        used = (space["metadata"].get("labels") or {}).get(USE, args.name)
        if used != args.name and not args.overwrite:
            raise Refused(f"namespace {args.namespace}", f"{USE}={used}", "it uses another one: give --overwrite")
        await client.patch(spaces, args.namespace, {"metadata": {"labels": {USE: args.name}}})
        env.line(f"namespace {args.namespace} labeled with {USE}={args.name}")
    return Exit.OK


async def _there(asked: Awaitable[T], what: str) -> T:
    try:
        return await asked
    except NotThere:
        raise Refused(f"{what} not found") from None


def _read(raw: Mapping[str, Any]) -> Gateway | None:
    """None for one that is no valid Gateway: it is not a waypoint."""
    whole = {"apiVersion": VERSIONS[0], "kind": Gateway.kind, **raw}
    try:
        record: Record = parse_object(whole, "cluster", observed=True)
    except InvalidInput:
        return None
    return record if isinstance(record, Gateway) else None
