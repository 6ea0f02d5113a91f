"""`./dev campaign judging [--pairs N] [--seed S]`: the index against the definition, a million random pairs.

Recorded in docs/reports/judging.json; a pair on which they differ ends it with that pair.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Final

from ambient.model.outcome import Reason
from tests.support.judging import compare

ROOT: Final = Path(__file__).resolve().parents[2]
REPORT: Final = ROOT / "docs" / "reports" / "judging.json"
_SHARE: Final = 50_000
"""Pairs of one seed; the next share takes the next seed, so that a share can be repeated alone."""


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="dev campaign judging")
    parser.add_argument("--pairs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1_000)
    options = parser.parse_args(arguments)
    begun = time.monotonic()
    seeds = range(options.seed, options.seed + -(-options.pairs // _SHARE))
    found: Counter[Reason] = Counter()
    with ProcessPoolExecutor(os.cpu_count()) as pool:
        for verdicts in pool.map(compare, seeds, [_SHARE] * len(seeds)):
            found.update(verdicts)
    record = {
        "pairs": found.total(),
        "seeds": [seeds[0], seeds[-1]],
        "differences": 0,
        "verdicts": {str(reason): found[reason] for reason in sorted(found)},
        "seconds": round(time.monotonic() - begun, 1),
    }
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
