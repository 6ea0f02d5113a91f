"""Output of read commands: a table for people or JSON for scripts, from the same rows."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence

from ambient.cli.env import Env

Row = Mapping[str, object]
"""Column title -> value. None and "" print as "-"."""


def output_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table", help="table (default) or json")


def show(env: Env, output: str, titles: Sequence[str], rows: Sequence[Row], document: object) -> None:
    """Print `rows` under `titles`, or `document` as JSON when `output` is "json"."""
    if output == "json":
        env.line(json.dumps(document, indent=2, default=str))
        return
    cells = [list(titles), *([_cell(row.get(title)) for title in titles] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(titles))]
    for line in cells:
        env.line("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple | set | frozenset):
        return ",".join(str(part) for part in value) or "-"
    return "-" if value is None or value == "" else str(value)
