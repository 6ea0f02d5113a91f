"""`ambient check`: is every part healthy and in step? With --pre: can it be installed? Exit code 3 when not."""

from __future__ import annotations

import argparse
import asyncio
from dataclasses import asdict

from ambient.cli.env import Env, Exit
from ambient.cli.health import Finding, examine
from ambient.cli.manifest import NAMESPACE
from ambient.cli.preflight import examine as examine_cluster
from ambient.cli.table import output_option, show
from ambient.cli.which import api

_WORDS = {True: "ok", False: "FAILED", None: "unknown"}


def arguments(parser: argparse.ArgumentParser) -> None:
    output_option(parser)
    parser.add_argument("--pre", action="store_true", help="before it is installed: would this cluster take it?")
    parser.add_argument(
        "--namespace", default=NAMESPACE, help=f"with --pre: where the mesh is to live, or lives ({NAMESPACE})"
    )


def run(env: Env, args: argparse.Namespace) -> int:
    findings = asyncio.run(_before(env, args)) if args.pre else list(examine(env.reach(args)))
    rows = [{"PART": f.part, "HEALTH": _WORDS[f.healthy], "DETAIL": f.detail} for f in findings]
    show(env, args.output, ("PART", "HEALTH", "DETAIL"), rows, [asdict(finding) for finding in findings])
    well = [finding.healthy or (args.pre and finding.healthy is None) for finding in findings]
    return Exit.OK if all(well) else Exit.NEGATIVE


async def _before(env: Env, args: argparse.Namespace) -> list[Finding]:
    async with api(args, env.environ) as client:
        return await examine_cluster(client, args.namespace)
