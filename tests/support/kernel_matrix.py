"""Which tests are run on which kernel, and what came of them."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final
from xml.etree import ElementTree

from ambient.datapath import programs, sources
from ambient.datapath.tc_sockets import FORMS
from tests.support.guest import Guest, Ran
from tests.support.guest_root import RESULT

_TCX_SINCE: Final = (6, 6)
_JUNIT: Final = "junit.xml"
_TAIL: Final = 3000
_TEST_SECONDS: Final = 1200
"""After which one test is ended: several times what it may take outside of a guest."""


@dataclass(frozen=True, slots=True)
class Part:
    """`tests`: what pytest is told; `seconds`: after which the guest is ended, on a machine that does nothing else
    about a tenth of it is used; `without_tcx`: the tests instead where the kernel has none, if they differ."""

    name: str
    tests: tuple[str, ...]
    seconds: float
    without_tcx: tuple[str, ...] = ()

    def tests_on(self, release: str) -> tuple[str, ...]:
        major, minor, *_ = (int(digits) for digits in re.findall(r"\d+", release))
        return self.without_tcx if self.without_tcx and (major, minor) < _TCX_SINCE else self.tests


VERDICTS: Final = Part(
    "load, layout, verdicts of policy",
    (
        "tests/bpf/test_lifecycle.py::test_the_mirrors_agree_with_the_programs_and_a_drift_is_seen",
        "tests/bpf/test_policy.py::test_programs_say_what_policy_says",
        "tests/bpf/test_policy.py::test_a_wrong_row_is_found_by_that_comparison",
        "-k=object",
    ),
    600,
)
"""Without an interface: every program past the verifier, run on frames beside the definition."""
_GIVEN: Final = tuple(
    f"tests/bpf/test_{name}.py"
    for name in ("named_listeners", "reborn", "reservations", "capture", "cookies", "failing")
)
LISTENERS: Final = Part(
    "listeners and what they are given",
    (*_GIVEN, "-k=object and not clsact"),
    1800,
    without_tcx=(*_GIVEN, "-k=object and not tcx"),
)
"""What differs most between kernels: how a packet is given to a socket, also where an old connection is in its way."""
CAPTURE: Final = Part(
    "capture, policy, alarm", ("tests/bpf", "-k=object"), 3600, without_tcx=("tests/bpf", "-k=object and clsact")
)
COMPILED_BY_BCC: Final = Part(
    "the same, loaded by bcc",
    ("tests/bpf/test_capture.py", "tests/bpf/test_policy.py", "-k=bcc"),
    3600,
    without_tcx=(*VERDICTS.tests[:-1], "-k=bcc"),
)
AGENT: Final = Part(
    "agent and ztunnel",
    ("tests/lab/test_agent.py", "tests/lab/test_kernel_policy.py", "tests/lab/test_agent_policies.py"),
    3600,
)
RULES: Final = Part(
    "capture by nftables",
    ("tests/lab/test_rule_table.py", "tests/lab/test_rules_planted.py", "tests/lab/test_agent_by_rules.py"),
    3600,
)
PARTS: Final = (VERDICTS, LISTENERS, CAPTURE, COMPILED_BY_BCC, AGENT, RULES)


@dataclass(slots=True)
class Row:
    """One part on one kernel, at `commit`. `broken`: test and first line of what it says; or why there is no result."""

    kernel: str
    part: str
    commit: str = ""
    passed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    broken: list[str] = field(default_factory=list)


def run(guest: Guest, part: Part, *, cores: int = 1) -> Row:
    """Boot for this part."""
    row = Row(guest.kernel.release, part.name)
    found = guest.shared / _JUNIT
    found.unlink(missing_ok=True)
    begun = time.monotonic()
    words = (
        *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={RESULT / _JUNIT}"),
        f"--timeout={_TEST_SECONDS}",
    )
    ran = guest.run((*words, *part.tests_on(guest.kernel.release)), part.seconds, cores=cores)
    row.seconds = round(time.monotonic() - begun, 1)
    if found.exists():
        _read(found, row)
    if not found.exists() or (ran.code != 0 and not row.broken):
        row.broken.append(_unfinished(ran))
    return row


def _read(report: Path, row: Row) -> None:
    for case in ElementTree.parse(report).iter("testcase"):
        wrong = [child for child in case if child.tag in ("failure", "error")]
        name = f"{case.get('classname', '').rpartition('.')[2]}::{case.get('name')}"
        row.broken += [f"{name}: {(child.get('message') or '').splitlines()[0][:200]}" for child in wrong]
        if not wrong:
            skipped = any(child.tag == "skipped" for child in case)
            row.skipped += skipped
            row.passed += not skipped


def _unfinished(ran: Ran) -> str:
    return f"no result (code {ran.code}): {ran.said[-_TAIL:]}"


@contextmanager
def prebuilt_objects() -> Iterator[None]:
    """Both objects of these sources beside them, as a package has it: the guest's compiler would take half a minute."""
    folder = sources.source_directory()
    with ExitStack() as stack:
        for form in FORMS:
            path = sources.object_path(folder, sources.version(folder), form)
            if not path.exists():
                stack.callback(path.unlink, missing_ok=True)
                programs.build_object(folder, path, form)
        yield


def told(rows: Sequence[Row]) -> list[str]:
    """The rows as a table in Markdown, what is broken below it."""
    lines = ["| kernel | tests | commit | passed | skipped | failed | seconds |", "|---|---|---|---|---|---|---|"]
    for row in rows:
        counts = f"{row.passed} | {row.skipped} | {len(row.broken)} | {row.seconds:.0f}"
        lines.append(f"| {row.kernel} | {row.part} | {row.commit[:9]} | {counts} |")
    lines.append("")
    lines += [f"- {row.kernel}, {row.part}: {text}" for row in rows for text in row.broken]
    return lines
