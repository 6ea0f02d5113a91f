"""`./dev campaign fuzz [--inputs N] [--seed S]`: a million spoilt inputs for everything that reads octets from outside.

Recorded in docs/reports/fuzz.json and fuzz.md; a crash ends it with the input that caused it.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Final

from tests.support.fuzz import Result, fuzz
from tests.support.fuzz_targets import targets

REPORTS: Final = Path(__file__).resolve().parents[2] / "docs" / "reports"


def one(index: int, inputs: int, seed: int) -> Result:
    """Runs in a process of its own."""
    return fuzz(targets()[index], inputs, seed)


def table(results: list[Result], seed: int) -> str:
    lines = [
        "# Fuzzing",
        "",
        f"`./dev campaign fuzz --seed {seed}`: inputs mutated from good ones. No crash; growth is what was held at the "
        "end beyond what was held after the first thousand. Readers of discovery fill two caches of 8,192 values each, "
        "which makes at most some 50,000 objects, however long it goes on.",
        "",
        "| target | inputs | accepted | slowest, ms of CPU | objects more | KB more |",
        "|---|---|---|---|---|---|",
    ]
    for r in results:
        slowest = f"{r.slowest_s * 1000:.1f}"
        lines.append(f"| {r.target} | {r.inputs:,} | {r.accepted:,} | {slowest} | {r.objects} | {r.kb} |")
    return "\n".join(lines) + "\n"


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="dev campaign fuzz")
    parser.add_argument("--inputs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        running = [pool.submit(one, index, options.inputs, options.seed) for index in range(len(targets()))]
        results = [future.result() for future in running]
    text = table(results, options.seed)
    (REPORTS / "fuzz.md").write_text(text)
    (REPORTS / "fuzz.json").write_text(json.dumps([asdict(result) for result in results], indent=1) + "\n")
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
