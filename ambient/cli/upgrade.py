"""`ambient upgrade`: what is installed is made what this version ships. Connections go on meanwhile."""

from __future__ import annotations

import argparse
import asyncio

from ambient.cli import install
from ambient.cli.cluster_objects import installed
from ambient.cli.env import Env
from ambient.cli.which import api


def arguments(parser: argparse.ArgumentParser) -> None:
    install.arguments(parser)


def run(env: Env, args: argparse.Namespace) -> int:
    async def before() -> str:
        async with api(args, env.environ) as client:
            return await installed(client, args.namespace)

    env.line(f"from     {asyncio.run(before())}")
    env.line(f"to       {args.image}")
    return install.run(env, args)
