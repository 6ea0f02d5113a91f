"""`ambient agent` and `ambient control`: become that process. Its settings come from the environment."""

from __future__ import annotations

import argparse
import sys

from ambient.cli.env import Env, Exit, Usage


def run(env: Env, args: argparse.Namespace) -> int:
    if args.rest in (["-h"], ["--help"]):
        env.line(
            f"usage: ambient {args.command}\n\nRuns the process in the foreground; every setting is an environment "
            f"variable (names and defaults: ambient/{args.command}/settings.py).\n\nexamples:\n"
            f"  ambient {args.command}"
        )
        return Exit.OK
    if args.rest:
        raise Usage("takes no arguments", " ".join(args.rest), "settings come from the environment")
    env.become([sys.executable, "-m", f"ambient.{args.command}"])
