"""Budgets of a pod over real ztunnels with two workers each: they hold, harm nobody else, and are given back."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from ambient.cli.demo.stage import PYTHON
from ambient.cli.reach import LabReach
from tests.support.journey import MODE, server
from tests.support.lab import SLEEP, LabUnderTest, lab_under_test, namespace_yaml, pod_yaml, until

OPEN, PER_SECOND, STATS_PORT = 60, 2, 15020
BURST_SIZE = 40
"""Fewer than may be open at once, however long a busy machine takes to end them: what fails is then the rate's fault.
Far more than the rate lets in while even a slow machine opens them."""

HOLD = r"""
import socket, sys
host, count = sys.argv[1], int(sys.argv[2])
held, refused = [], 0
for _ in range(count):
    try:
        s = socket.create_connection((host, 7000), 20)
        s.settimeout(20)
        if s.makefile("rb").readline():
            held.append(s)
        else:
            refused += 1
    except OSError:
        refused += 1
print(len(held), refused, flush=True)
sys.stdin.readline()
"""

BURST = r"""
import json, socket, sys, threading
host, count = sys.argv[1], int(sys.argv[2])
failed, room = [], threading.Semaphore(8)
def one():
    try:
        with socket.create_connection((host, 7000), 60) as s:
            s.settimeout(60)
            if not s.makefile("rb").readline():
                failed.append("ended without a word")
    except OSError as error:
        failed.append(str(error))
    room.release()
threads = []
for _ in range(count):
    room.acquire()
    threads.append(threading.Thread(target=one))
    threads[-1].start()
for thread in threads:
    thread.join()
print(json.dumps(failed))
"""

WORK = r"""
import socket, sys
with socket.create_connection((sys.argv[1], 7000), 20) as s:
    lines = s.makefile("rb")
    lines.readline()
    print("working", flush=True)
    import threading
    end = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.readline(), end.set()), daemon=True).start()
    count = 0
    while not end.wait(0.05):
        s.sendall(b"word\n")
        if lines.readline() != b"word\n":
            sys.exit("other words")
        count += 1
    print(count)
"""


@pytest.fixture(scope="module")
def mesh() -> Iterator[LabUnderTest]:
    budgets = {
        "ztunnel:AMBIENT_POD_OPEN_CONNECTIONS": str(OPEN),
        "ztunnel:AMBIENT_POD_CONNECTIONS_PER_SECOND": str(PER_SECOND),
        "ztunnel:ZTUNNEL_WORKER_THREADS": "2",
    }
    with lab_under_test("budget") as lab:
        lab.up(
            namespace_yaml("in", **{MODE: "ambient"})
            + server("in/far", "n2")
            + server("in/farther", "n2")
            + pod_yaml("in/greedy", SLEEP, node="n1")
            + pod_yaml("in/eager", SLEEP, node="n1")
            + pod_yaml("in/modest", SLEEP, node="n1"),
            mesh=True,
            env=budgets,
        )
        lab.wait_ready()
        yield lab


def reached(mesh: LabUnderTest, budget: str) -> float:
    text = LabReach(mesh.name).ztunnel("n1", "/metrics", STATS_PORT).text
    return sum(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "ambient_pod_budget_reached_total" and sample.labels["budget"] == budget
    )


def hold(mesh: LabUnderTest, pod: str, host: str, count: int) -> tuple[subprocess.Popen[str], int, int]:
    process = mesh.start(pod, PYTHON, "-u", "-c", HOLD, mesh.ip(host), str(count))
    assert process.stdout is not None
    held, refused = process.stdout.readline().split()
    return process, int(held), int(refused)


def test_no_pod_holds_more_connections_than_it_may_and_others_hold_theirs(mesh: LabUnderTest) -> None:
    greedy, held, refused = hold(mesh, "in/greedy", "in/far", OPEN + 10)
    try:
        assert (held, refused) == (OPEN, 10)
        modest, also, none = hold(mesh, "in/modest", "in/farther", 5)
        assert (also, none) == (5, 0)
        modest.communicate("\n", timeout=90)
        until("it is in the metrics", lambda: reached(mesh, "open_connections") > 0)
        log = mesh.names.log("n1", "ztunnel")
        until("it is in the log", lambda: "budget open_connections reached" in log.read_text())
    finally:
        greedy.communicate("\n", timeout=90)

    def given_back() -> bool:
        again, held, _ = hold(mesh, "in/greedy", "in/far", OPEN)
        again.communicate("\n", timeout=90)
        return held == OPEN

    until("what it held is given back", given_back)


def test_who_opens_connections_too_fast_is_held_back_while_others_work_and_fails_none(mesh: LabUnderTest) -> None:
    working = mesh.start("in/modest", PYTHON, "-u", "-c", WORK, mesh.ip("in/far"))
    try:
        assert working.stdout is not None
        assert working.stdout.readline() == "working\n"
        many = str(BURST_SIZE)
        burst = mesh.exec("in/eager", PYTHON, "-c", BURST, mesh.ip("in/farther"), many, timeout_s=100)
        assert json.loads(burst.stdout) == []
        until("it was held back", lambda: reached(mesh, "connections_per_second") > 0)
    finally:
        out, err = working.communicate("\n", timeout=90)
    assert working.returncode == 0, err
    assert int(out) > 0
