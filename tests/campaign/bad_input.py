"""`./dev campaign bad_input [PYTEST ARGS]`: every rule broken once at a running mesh, recorded in docs/reports.

The report names rule, input and answer of every row that passed; it is written only when all did.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[2]
REPORT: Final = ROOT / "docs" / "reports" / "bad-input.md"


def main(options: list[str]) -> int:
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / "report.md"
        argv = [sys.executable, "-m", "pytest", "tests/hostile", "--write-bad-input", str(made), *options]
        code = subprocess.run(argv, cwd=ROOT, check=False).returncode
        if code == 0:
            REPORT.parent.mkdir(parents=True, exist_ok=True)
            REPORT.write_text(made.read_text())
            print(f"written: {REPORT.relative_to(ROOT)}")
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
