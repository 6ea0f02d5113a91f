"""How a campaign's record is kept: JSON with what was measured where, and beside it the same as Markdown."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]


def commit() -> str:
    """Of the clone; "" outside of git."""
    told = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False)
    return told.stdout.strip()


def where(**more: object) -> dict[str, Any]:
    """What a record begins with: date, commit, kernel, cores and `more`."""
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": commit(),
        "kernel": platform.release(),
        "cores": os.cpu_count(),
        **more,
    }


def keep(
    report: Path, key: str, values: Sequence[Any], markdown: Callable[[dict[str, Any]], str], **more: object
) -> None:
    """Write `values` (dataclasses) under `key`, after date, commit, kernel, cores and `more`; `markdown` gets these."""
    about = where(**more)
    report.parent.mkdir(parents=True, exist_ok=True)
    report.write_text(json.dumps({**about, key: [asdict(value) for value in values]}, indent=1) + "\n")
    report.with_suffix(".md").write_text(markdown(about))
