"""Runs the commands of a document as a reader would: in order, in one shell, and compares what they print.

A fenced block says with its info string what becomes of it:

    ```sh lab               run in the one-machine lab          ```sh cluster      run against a cluster
    ```sh lab exits=3       the last command ends with 3        ```sh by=FILE      run by that test
    ```sh untried           cannot be run here (the document says why); only its syntax is looked at

A block ```text right behind one that is run is what it prints: its lines in this order, `...` standing for anything.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parents[2]
DOCUMENTS: Final = (
    *("README.md", "docs/quickstart.md", "docs/migration.md", "docs/outside.md", "docs/waypoint.md"),
    "VAGRANT.md",
)
_FENCE: Final = re.compile(r"^```(.*)$")
_MARK: Final = "::block "
_SHOWN: Final = 3000


@dataclass(frozen=True, slots=True)
class Block:
    """`line` is where its fence stands."""

    document: str
    line: int
    info: tuple[str, ...]
    text: str
    expected: tuple[str, ...] = ()

    @property
    def runs_in(self) -> str:
        """ "lab", "cluster", "untried", or "" when another test runs it."""
        word = self.info[1] if len(self.info) > 1 else ""
        return "" if word.startswith("by=") else word

    @property
    def elsewhere(self) -> str:
        return next((word.removeprefix("by=") for word in self.info if word.startswith("by=")), "")

    @property
    def exit_code(self) -> int:
        return next((int(word.removeprefix("exits=")) for word in self.info if word.startswith("exits=")), 0)


def blocks(document: str) -> list[Block]:
    """The shell blocks of a document, each with what it is to print."""
    found: list[Block] = []
    lines = (ROOT / document).read_text().splitlines()
    at, previous_end = 0, -1
    while at < len(lines):
        fence = _FENCE.match(lines[at])
        if fence is None:
            at += 1
            continue
        end = next(i for i in range(at + 1, len(lines)) if lines[i].startswith("```"))
        info, body = tuple(fence[1].split()), lines[at + 1 : end]
        if info[:1] == ("sh",):
            found.append(Block(document, at + 1, info, "\n".join(body)))
            previous_end = end
        elif info[:1] == ("text",) and found and not any(line.strip() for line in lines[previous_end + 1 : at]):
            found[-1] = replace(found[-1], expected=tuple(line.strip() for line in body if line.strip()))
        at = end + 1
    return found


def run(document: str, place: str, environment: Mapping[str, str], *, timeout_s: float) -> None:
    """Run a document's blocks of that place. AssertionError naming the block that failed, with what was said."""
    chosen = [block for block in blocks(document) if block.runs_in == place]
    assert chosen, f"{document} has nothing to run in {place}"
    script = ["set -euo pipefail"]
    for number, block in enumerate(chosen):
        script.append(f"printf '\\n{_MARK}{number}\\n'")
        if block.exit_code:
            script.append(f"code=0\n(\n{block.text}\n) || code=$?\n[ $code = {block.exit_code} ]")
        else:
            script.append(block.text)
    done = subprocess.run(
        ["bash", "-c", "\n".join(script)],
        cwd=ROOT,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        stdin=subprocess.DEVNULL,
        text=True,
        timeout=timeout_s,
        check=False,
    )
    said = [part.partition("\n")[2] for part in done.stdout.split(f"\n{_MARK}")[1:]]
    for block, output in zip(chosen, said, strict=False):
        missing = lacking(block.expected, output)
        where = f"{document}:{block.line}"
        assert not missing, f"{where} does not print {missing!r}:\n{block.text}\n---\n{output[-_SHOWN:]}"
    last = chosen[max(len(said) - 1, 0)]
    assert done.returncode == 0, (
        f"{document}:{last.line} ended with {done.returncode}:\n{last.text}\n---\n{done.stdout[-_SHOWN:]}"
    )


def lacking(expected: tuple[str, ...], output: str) -> str:
    """The first expected line that does not come (after those before it), "" when all do."""
    lines = iter(" ".join(line.split()) for line in output.splitlines())
    for wanted in expected:
        parts = [re.escape(" ".join(part.split())) for part in wanted.split("...")]
        pattern = re.compile(r"\s*.*\s*".join(parts))
        if not any(pattern.fullmatch(line) or pattern.search(line) for line in lines):
            return wanted
    return ""


def syntax(block: Block) -> str:
    """What a shell says against the block's syntax."""
    done = subprocess.run(["bash", "-n"], input=block.text, capture_output=True, text=True, check=False)
    return done.stderr
