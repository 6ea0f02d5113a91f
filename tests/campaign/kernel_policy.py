"""`./dev campaign kernel_policy [--pairs N] [--seed S] [--loader L]`: the programs against the definition.

Random policy sets and flows through pod_egress and pod_ingress (BPF_PROG_TEST_RUN), half of the pairs with each loader;
a refusal has to be a proper answer, dry-run policies are counted too. Recorded in docs/reports/kernel_policy.json; a
pair on which kernel and policy differ ends it with that pair.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any, Final, Literal

from ambient.datapath import programs
from tests.support.campaign_record import ROOT, keep
from tests.support.kernel_policy import Compared, compare, programs_of, scratch

REPORT: Final = ROOT / "docs" / "reports" / "kernel_policy.json"
_SCENES: Final = 100
_FLOWS: Final = 250
"""Pairs of one seed: scenes times flows."""
LOADERS: Final[tuple[Literal["bcc", "object"], ...]] = ("bcc", "object")


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="dev campaign kernel_policy")
    parser.add_argument("--pairs", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=2_000)
    options = parser.parse_args(arguments)
    begun = time.monotonic()
    found = {loader: Compared() for loader in LOADERS}
    seed = options.seed
    for loader in LOADERS:
        bpffs = scratch(f"campaign-{loader}")
        programs.load(bpffs, loader)
        try:
            seed = _run(bpffs, found[loader], seed, options.pairs // len(LOADERS))
        finally:
            programs.unload(bpffs)
    differences = [text for one in found.values() for text in one.differences]
    for text in differences:
        print(text)
    keep(
        REPORT,
        "loaders",
        list(found.values()),
        lambda about: _markdown(about, found),
        seeds=[options.seed, seed - 1],
        names=list(LOADERS),
        seconds=round(time.monotonic() - begun, 1),
    )
    return 1 if differences else 0


def _run(bpffs: Path, total: Compared, seed: int, pairs: int) -> int:
    """Adds to `total`; gives the next seed."""
    with programs_of(bpffs) as running:
        while total.pairs < pairs and not total.differences:
            one = compare(running, seed, _SCENES, _FLOWS)
            total.pairs += one.pairs
            total.refused += one.refused
            total.effects += one.effects
            total.differences += one.differences
            seed += 1
    return seed


def _markdown(about: dict[str, Any], found: dict[Literal["bcc", "object"], Compared]) -> str:
    lines = [
        "# Kernel verdict beside policy's",
        "",
        f"{about['date']}, commit {about['commit'][:12]}, kernel {about['kernel']}, {about['cores']} cores, "
        f"seeds {about['seeds'][0]} to {about['seeds'][1]}, {about['seconds']} s.",
        "",
        "| loader | pairs | refused | effects of dry-run policies | differences |",
        "|---|---|---|---|---|",
    ]
    lines += [
        f"| {loader} | {one.pairs} | {one.refused} | {one.effects} | {len(one.differences)} |"
        for loader, one in found.items()
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
