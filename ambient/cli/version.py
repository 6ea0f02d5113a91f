"""`ambient version`: this program, Python, OpenSSL and the kernel: what a bug report needs."""

from __future__ import annotations

import argparse
import platform
import ssl

from ambient import __version__
from ambient.cli.env import Env, Exit
from ambient.cli.table import output_option, show


def arguments(parser: argparse.ArgumentParser) -> None:
    output_option(parser)


def run(env: Env, args: argparse.Namespace) -> int:
    facts = {
        "ambient": __version__,
        "python": platform.python_version(),
        "openssl": ssl.OPENSSL_VERSION,
        "kernel": platform.release(),
        "machine": platform.machine(),
    }
    rows = [{"PART": part, "VERSION": version} for part, version in facts.items()]
    show(env, args.output, ("PART", "VERSION"), rows, facts)
    return Exit.OK
