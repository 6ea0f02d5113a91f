"""What is imported before director and workers are forked."""

from __future__ import annotations

import subprocess
import sys


def imported(code: str) -> set[str]:
    """The mesh's own modules that are there after this, in a process of its own."""
    show = "import sys; print(*(one for one in sys.modules if one.startswith(('ambient', 'ztunnel'))))"
    done = subprocess.run([sys.executable, "-c", f"{code}\n{show}"], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_it_is_all_that_director_and_workers_have_in_common_and_nothing_else() -> None:
    ours = imported("from ztunnel.shared import load; load()") - {"ztunnel.shared", "ztunnel.compiled"}
    director = imported("import ztunnel.director.app")
    worker = imported("from ztunnel.worker.__main__ import prepare; prepare()")
    assert ours <= director & worker
    assert director & worker == ours


def test_a_director_begins_without_what_no_pod_waits_for() -> None:
    code = (
        "import sys, ztunnel.director.app; print({'grpc', 'prometheus_client', 'yaml', 'http.client'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
