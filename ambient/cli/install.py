"""`ambient install`: the shipped manifest, applied to a cluster, and waited for.

What its few options do not say is for the Helm chart, from which the manifest is rendered.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from pathlib import Path

from ambient.cli.cluster_objects import apply, compare
from ambient.cli.env import Env, Exit
from ambient.cli.manifest import NAMESPACE, Piece, pieces, shipped
from ambient.cli.preflight import examine
from ambient.cli.which import api
from ambient.errors import InvalidInput, Refused
from ambient.kube.api.client import ApiClient


def arguments(parser: argparse.ArgumentParser) -> None:
    cluster_options(parser)
    parser.add_argument("--image", required=True, metavar="REFERENCE", help="the image, as nodes can pull it")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of every part")
    parser.add_argument(
        "--mesh-config", type=Path, metavar="FILE", help="Istio's MeshConfig, instead of the one that is there"
    )
    parser.add_argument("--diff", action="store_true", help="only say what would change; exit code 3 if anything would")
    parser.add_argument("--force", action="store_true", help="although `ambient check --pre` finds something wrong")


def cluster_options(parser: argparse.ArgumentParser) -> None:
    """--context, --kubeconfig, --namespace and --timeout."""
    parser.add_argument("--context", metavar="CONTEXT", help="the cluster of this context of the kubeconfig")
    parser.add_argument("--kubeconfig", metavar="FILE", help="instead of $KUBECONFIG or ~/.kube/config")
    parser.add_argument("--namespace", default=NAMESPACE, help=f"where the mesh lives ({NAMESPACE})")
    parser.add_argument("--timeout", type=float, default=300, metavar="SECONDS", help="how long to wait (300)")


def run(env: Env, args: argparse.Namespace) -> int:
    mesh_config = _text(args.mesh_config) if args.mesh_config is not None else ""
    made = pieces(shipped(), image=args.image, namespace=args.namespace, settings=args.set, mesh_config=mesh_config)

    async def work() -> int:
        async with api(args, env.environ) as client:
            if args.diff:
                return await _diff(env, client, made)
            if not args.force:
                await examined(client, args.namespace)
            await apply(client, made, env.line, args.timeout)
            return Exit.OK

    return asyncio.run(work())


def _text(file: Path) -> str:
    try:
        return file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput("--mesh-config", str(file), str(error)) from None


async def examined(client: ApiClient, namespace: str) -> None:
    """Raises Refused when the cluster would not take the mesh; what is in `namespace` already is its own."""
    wrong = [finding for finding in await examine(client, namespace) if finding.healthy is False]
    if wrong:
        told = "; ".join(f"{finding.part}: {finding.detail}" for finding in wrong)
        raise Refused("this cluster", why=f"{told} (--force installs all the same)")


async def _diff(env: Env, client: ApiClient, made: Sequence[Piece]) -> int:
    changes = False
    for piece in made:
        for difference in await compare(client, piece):
            changes = True
            env.line(f"{piece}: {'would be made' if difference == '+' else difference}")
    return Exit.NEGATIVE if changes else Exit.OK
