"""`ambient check`: is every part healthy and in step? Exit code 3 when one is not."""

from __future__ import annotations

import argparse
from dataclasses import asdict

from ambient.cli.env import Env, Exit
from ambient.cli.health import examine
from ambient.cli.table import output_option, show

_WORDS = {True: "ok", False: "FAILED", None: "unknown"}


def arguments(parser: argparse.ArgumentParser) -> None:
    output_option(parser)


def run(env: Env, args: argparse.Namespace) -> int:
    findings = list(examine(env.reach(args)))
    rows = [{"PART": f.part, "HEALTH": _WORDS[f.healthy], "DETAIL": f.detail} for f in findings]
    show(env, args.output, ("PART", "HEALTH", "DETAIL"), rows, [asdict(finding) for finding in findings])
    return Exit.OK if all(finding.healthy for finding in findings) else Exit.NEGATIVE
