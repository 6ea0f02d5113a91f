"""The shortest form of the kernel matrix: the last series without TCX, in qemu, and what the programs say there."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import pytest

from tests.support.features import need
from tests.support.guest import Guest, guest
from tests.support.kernel_matrix import VERDICTS, prebuilt_objects, run
from tests.support.kernel_packages import kernel_of, unpacked

SERIES = "6.1"
pytestmark = pytest.mark.timeout(1200)


@pytest.fixture(scope="module")
def machine() -> Iterator[Guest]:
    need("an x86-64 processor")
    with prebuilt_objects(), guest(unpacked(kernel_of(SERIES))) as made:
        yield made


def test_every_program_passes_the_verifier_and_says_what_policy_says(machine: Guest) -> None:
    row = run(machine, VERDICTS)
    assert not row.broken, "\n".join(row.broken)
    assert row.kernel.startswith(f"{SERIES}.")
    assert (row.passed, row.skipped) == (3, 0)


def test_a_command_that_fails_on_another_kernel_is_seen_to_fail_there(machine: Guest) -> None:
    ran = machine.run((sys.executable, "-c", "import os, sys; print(os.uname().release); sys.exit(3)"), 300)
    assert (ran.code, machine.kernel.release in ran.said) == (3, True), ran.said
