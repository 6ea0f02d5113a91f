"""`ambient uninstall`: everything of the mesh is taken off the cluster and its nodes.

Objects of people (policies and their kinds, the labels of namespaces) stay unless they are named. While a namespace
asks to be in the mesh it is refused: its pods would lose their encryption without anybody having said so.
"""

from __future__ import annotations

import argparse
import asyncio
from typing import Final

from ambient.cli.cluster_objects import remove, still_in
from ambient.cli.env import Env, Exit
from ambient.cli.install import cluster_options
from ambient.cli.manifest import RESOURCES, Piece, pieces, shipped
from ambient.cli.which import api
from ambient.errors import Refused
from ambient.kube.api.client import ApiClient
from ambient.kube.api.failure import NotThere

LABEL: Final = "istio.io/dataplane-mode"
ROOTS: Final = "istio-ca-root-cert"
_ANY_IMAGE: Final = "none"


def arguments(parser: argparse.ArgumentParser) -> None:
    cluster_options(parser)
    parser.add_argument("--crds", action="store_true", help="the kinds as well, and with them every policy")
    parser.add_argument("--force", action="store_true", help="although namespaces or pods ask to be in the mesh")


def run(env: Env, args: argparse.Namespace) -> int:
    made = pieces(shipped(), image=_ANY_IMAGE, namespace=args.namespace)
    if not args.crds:
        made = [piece for piece in made if piece.kind != "CustomResourceDefinition"]

    async def work() -> None:
        async with api(args, env.environ) as client:
            asking = await still_in(client, LABEL)
            if asking and not args.force:
                raise Refused(
                    "the mesh is in use",
                    ", ".join(asking[:5]) + (f" and {len(asking) - 5} more" if len(asking) > 5 else ""),
                    f"take the label off (`kubectl label namespace NAME {LABEL}-`), or --force",
                )
            await remove(client, made, env.line, args.timeout, in_use=bool(asking))
            await _forget_roots(env, client)

    asyncio.run(work())
    return Exit.OK


async def _forget_roots(env: Env, client: ApiClient) -> None:
    """The roots that our control plane has written into every namespace; nobody else's."""
    resource = RESOURCES["ConfigMap"]
    listed = await client.list(resource, fields=f"metadata.name={ROOTS}")
    for item in listed.get("items") or []:
        piece = Piece({**item, "kind": "ConfigMap"})
        managers = {entry.get("manager") for entry in item["metadata"].get("managedFields") or []}
        if managers & {"ambient", "ambient-control"}:
            try:
                await client.delete(resource, piece.name, piece.namespace)
                env.line(f"deleted  {piece}")
            except NotThere:
                continue
