"""Which mesh a command is about: a lab, a real cluster, or the node it runs on."""

from __future__ import annotations

import argparse
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ambient.cli.env import Usage
from ambient.cli.reach import HostReach, LabReach, Reach
from ambient.errors import InvalidInput
from ambient.lab.names import Names, default_lab, lab_name

if TYPE_CHECKING:
    from ambient.kube.api.client import ApiClient


def mesh_options(parser: argparse.ArgumentParser) -> None:
    """--name, --context and --kubeconfig."""
    parser.add_argument(
        "--name",
        metavar="LAB",
        help="the lab to ask (without any of these three: the lab of name `lab` if it runs, else the cluster of your "
        "kubeconfig, else this node)",
    )
    parser.add_argument("--context", metavar="CONTEXT", help="the cluster of this context of the kubeconfig")
    parser.add_argument("--kubeconfig", metavar="FILE", help="instead of $KUBECONFIG or ~/.kube/config")


def reach(args: argparse.Namespace, environ: Mapping[str, str] = os.environ) -> Reach:
    """What the options of `mesh_options` say. Raises Usage, InvalidInput; a cluster is not connected to yet."""
    if args.name is not None:
        if args.context or args.kubeconfig:
            raise Usage("--name is for labs", why="--context and --kubeconfig for clusters: give one of them")
        lab = Names(lab_name(args.name))
        if not lab.folder.exists():
            raise InvalidInput(f"no lab {args.name!r} runs here", "--name", f"ambient lab up --name {args.name}")
        return LabReach(args.name)
    if args.context or args.kubeconfig:
        return _cluster(args, environ)
    usual = Names(lab_name(default_lab(environ)))
    if usual.folder.exists():
        return LabReach(usual.lab)
    if environ.get("KUBECONFIG") or ("NODE_NAME" not in environ and _usual(environ).exists()):
        return _cluster(args, environ)
    return HostReach(environ.get("NODE_NAME") or socket.gethostname())


def _cluster(args: argparse.Namespace, environ: Mapping[str, str]) -> Reach:
    from ambient.cli.cluster import ClusterReach  # its HTTP client takes a moment to load; labs need none

    return ClusterReach(api(args, environ))


def api(args: argparse.Namespace, environ: Mapping[str, str]) -> ApiClient:
    """A client of the cluster that the options name, or the kubeconfig where they name none. Raises InvalidInput."""
    from ambient.kube.api.client import ApiClient

    named = {**environ, "KUBECONFIG": args.kubeconfig} if args.kubeconfig else environ
    return ApiClient.open(named, context=args.context or "")


def _usual(environ: Mapping[str, str]) -> Path:
    return Path(environ.get("HOME", "/nonexistent")) / ".kube" / "config"
