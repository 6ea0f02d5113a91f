"""Envoy's own check of a configuration that is a file."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any


def judged(config: Mapping[str, Any], folder: Path) -> subprocess.CompletedProcess[str]:
    """What it says; its exit status is 0 where it takes all of it."""
    path = folder / "envoy.json"
    path.write_text(json.dumps(config))
    binary = str(Path(sys.executable).with_name("envoy"))
    argv = [binary, "--mode", "validate", "-c", str(path), "--disable-hot-restart", "--log-level", "error"]
    return subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
