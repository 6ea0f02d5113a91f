"""`./dev campaign kernels [SERIES...]`: the capture, policy and telemetry tests on other kernels, in qemu.

Recorded in docs/reports/kernels.{json,md} after every part; kernels and parts that are not named keep their last rows.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import Any, Final

from tests.support.campaign_record import ROOT, commit, keep
from tests.support.guest import guest
from tests.support.kernel_matrix import PARTS, Row, prebuilt_objects, run, told
from tests.support.kernel_packages import KERNELS, kernel_of, unpacked

REPORT: Final = ROOT / "docs" / "reports" / "kernels.json"


def main(arguments: Sequence[str]) -> int:
    """0 when nothing failed."""
    parser = argparse.ArgumentParser(prog="./dev campaign kernels", description=__doc__)
    parser.add_argument("series", nargs="*", help=f"of {', '.join(kernel.series for kernel in KERNELS)}; default: all")
    parser.add_argument("--part", default="", metavar="TEXT", help="parts whose name has this in it")
    parser.add_argument("--cores", type=int, default=1, help="of the guest")
    given = parser.parse_args(arguments)
    rows = earlier()
    broken = False
    with prebuilt_objects():
        for series in given.series or [kernel.series for kernel in KERNELS]:
            with guest(unpacked(kernel_of(series))) as machine:
                for part in PARTS:
                    if given.part not in part.name:
                        continue
                    row = run(machine, part, cores=given.cores)
                    row.commit = commit()
                    broken = broken or bool(row.broken)
                    rows[(series, part.name)] = row
                    write(rows)
                    sys.stdout.write("\n".join(told([row])[2:]) + "\n")
                    sys.stdout.flush()
    return 1 if broken else 0


def earlier() -> dict[tuple[str, str], Row]:
    """What earlier runs found, by series and part."""
    if not REPORT.exists():
        return {}
    rows = [Row(**raw) for raw in json.loads(REPORT.read_text())["rows"]]
    return {(kernel.series, row.part): row for row in rows for kernel in KERNELS if of_series(row, kernel.series)}


def of_series(row: Row, series: str) -> bool:
    return row.kernel.startswith(f"{series}.")


def write(rows: dict[tuple[str, str], Row]) -> None:
    order = [(kernel.series, part.name) for kernel in KERNELS for part in PARTS]
    ordered = [rows[key] for key in order if key in rows]
    keep(REPORT, "rows", ordered, lambda about: markdown(about, ordered))


def markdown(about: dict[str, Any], rows: Sequence[Row]) -> str:
    lines = [
        "# Kernels",
        "",
        f"`./dev campaign kernels`, last {about['date']}, on Linux {about['kernel']} with {about['cores']} cores:",
        "Debian's kernels in qemu, by software alone, so that the seconds are no measure of the mesh.",
        "",
        *told(rows),
    ]
    return "\n".join(lines).rstrip() + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
