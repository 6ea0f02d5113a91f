"""`ambient ticket create`: what a machine outside Kubernetes needs to join as one of a WorkloadGroup, once.

The ticket is printed and nowhere kept: the group gets a note by which the control plane knows it. Who may change the
group may make tickets.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ambient.ca.ticket import NOTE, Ticket, expired, new_ticket
from ambient.cli.env import Env, Exit, Usage
from ambient.cli.which import api
from ambient.errors import InvalidInput, Refused
from ambient.kube.api.client import ApiClient
from ambient.kube.api.failure import NotThere
from ambient.kube.networking import WorkloadGroup
from ambient.kube.objects import parse_object, record_key, resources
from ambient.kube.resource import Resource
from ambient.lab.lab import Lab
from ambient.lab.names import Names, default_lab, lab_name
from ambient.model.address import DISCOVERY_PORT
from ambient.settings import duration, target

CONFIG_MAPS: Final = Resource("v1", "configmaps")
ROOT: Final = "istio-ca-root-cert"
LONGEST_S: Final = 7 * 86400.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """`control` "" and `root` "": those of the mesh."""

    namespace: str
    group: str
    now_unix: float
    life_s: float
    control: str
    root: str

    def ticket(self, control: str, root: str) -> tuple[Ticket, str]:
        """A ticket with its note; what was given explicitly counts."""
        expires = self.now_unix + self.life_s
        given = (self.control or control, self.root or root)
        return new_ticket(self.namespace, self.group, control=given[0], root=given[1], expires_unix=expires)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("verb", choices=("create",))
    parser.add_argument("--group", required=True, metavar="NAMESPACE/GROUP", help="the WorkloadGroup to join")
    parser.add_argument("--ttl", default="1h", metavar="T", help="how long it may be used, at most 168h (default: 1h)")
    parser.add_argument(
        "--control", default="", metavar="HOST:PORT", help="how the machine reaches the control plane (a lab knows)"
    )
    parser.add_argument("--root", type=Path, metavar="FILE", help="root certificates (default: the mesh's own)")


def run(env: Env, args: argparse.Namespace) -> int:
    """Prints the ticket. Raises Usage, InvalidInput, Refused, Unavailable."""
    namespace, slash, group = args.group.partition("/")
    if not namespace or not slash or not group or "/" in group:
        raise Usage("--group", repr(args.group), "expected NAMESPACE/GROUP")
    try:
        life_s = duration(args.ttl)
        control = target(args.control) if args.control else ""
    except ValueError as error:
        raise Usage("not a ticket", why=str(error)) from None
    if not 0 < life_s <= LONGEST_S:
        raise Usage("--ttl", repr(args.ttl), "expected more than nothing and at most 168h")
    root = args.root.read_text() if args.root else ""
    wanted = Wanted(namespace, group, env.now(), life_s, control, root)
    lab = _lab(args, env.environ)
    ticket = in_lab(lab, wanted) if lab is not None else asyncio.run(_in_cluster(api(args, env.environ), wanted))
    env.line(ticket.text)
    return Exit.OK


def _lab(args: argparse.Namespace, environ: Mapping[str, str]) -> Lab | None:
    """The lab that the options mean, None for a cluster."""
    if args.name is not None:
        return Lab(Names(lab_name(args.name)))
    usual = Names(lab_name(default_lab(environ)))
    return None if args.context or args.kubeconfig or not usual.folder.exists() else Lab(usual)


def in_lab(lab: Lab, wanted: Wanted) -> Ticket:
    """Raises Refused when there is no such group."""
    ticket, note = wanted.ticket(
        f"{lab.settings.plan.control.v4}:{DISCOVERY_PORT}", (lab.names.credentials / "root-cert.pem").read_text()
    )
    with lab.locked():
        raw = lab.stored(record_key(WorkloadGroup.kind, wanted.namespace, wanted.group))
        if raw is None:
            raise Refused(f'workloadgroups "{wanted.group}" not found', wanted.namespace)
        kept = dict(raw["metadata"].get("annotations") or {})
        for key in expired(kept, wanted.now_unix):
            del kept[key]
        kept[NOTE + ticket.number] = note
        lab.folder.put([parse_object({**raw, "metadata": {**raw["metadata"], "annotations": kept}}, "ticket")])
    return ticket


async def _in_cluster(client: ApiClient, wanted: Wanted) -> Ticket:
    async with client:
        return await in_cluster(client, wanted)


async def in_cluster(client: ApiClient, wanted: Wanted) -> Ticket:
    """Raises Usage, Refused, Unavailable."""
    if not wanted.control:
        raise Usage("--control is needed", why="only you know how a machine outside reaches port 15012 of the cluster")
    root = wanted.root
    if not root:
        found = await client.get(CONFIG_MAPS, ROOT, wanted.namespace)
        root = (found.get("data") or {}).get("root-cert.pem", "")
    if "BEGIN CERTIFICATE" not in root:
        raise InvalidInput("root certificates", f"ConfigMap {wanted.namespace}/{ROOT}", "no certificate in it")
    groups = resources(WorkloadGroup.kind)[0]
    try:
        group = await client.get(groups, wanted.group, wanted.namespace)
    except NotThere:
        raise Refused(f'workloadgroups "{wanted.group}" not found', wanted.namespace) from None
    gone = expired(group["metadata"].get("annotations") or {}, wanted.now_unix)
    ticket, note = wanted.ticket("", root)
    changes: dict[str, str | None] = {**dict.fromkeys(gone), NOTE + ticket.number: note}
    await client.patch(groups, wanted.group, {"metadata": {"annotations": changes}}, wanted.namespace)
    return ticket
