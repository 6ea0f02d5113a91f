"""A ztunnel that is told to end, under a stream of new connections: none of them fails, on either side."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from ambient.cli.demo.stage import PYTHON
from tests.lab.test_client_address import SERVER
from tests.support.lab import SLEEP, LabUnderTest, lab_under_test, namespace_yaml, pod_yaml, until

STREAM = r"""
import json, socket, sys, threading, time
host, lock, done = sys.argv[1], threading.Lock(), []
room = threading.Semaphore(100)  # who cannot keep up opens fewer, not ever more at once
def one(number):
    began, why = time.monotonic(), ""
    try:
        with socket.create_connection((host, 7002), 60) as s:
            s.settimeout(60)
            s.sendall(b"c")
            if not s.makefile().readline().strip():
                why = "ended without an answer"
    except OSError as error:
        why = str(error) or type(error).__name__
    with lock:
        done.append((time.monotonic() - began, why))
    room.release()
threads, stop = [], threading.Event()
def end():
    sys.stdin.readline()
    stop.set()
threading.Thread(target=end, daemon=True).start()
print("began", flush=True)
while not stop.wait(0.002) or len(threads) < 200:
    room.acquire()
    thread = threading.Thread(target=one, args=(len(threads),))
    thread.start()
    threads.append(thread)
for thread in threads:
    thread.join()
failures = [why for _, why in done if why]
print(json.dumps(dict(count=len(done), failures=failures, slowest=max(took for took, _ in done))))
"""


@pytest.fixture(scope="module")
def mesh() -> Iterator[LabUnderTest]:
    with lab_under_test("plan") as lab:
        ready = {"tcpSocket": {"port": 7002}, "periodSeconds": 1}
        threaded = SERVER.replace("Server(socketserver.TCPServer)", "Server(socketserver.ThreadingTCPServer)")
        lab.up(
            namespace_yaml("in", **{"istio.io/dataplane-mode": "ambient"})
            + pod_yaml("in/server", [PYTHON, "-u", "-c", threaded], node="n2", readiness=ready)
            + pod_yaml("in/client", SLEEP, node="n1"),
            mesh=True,
        )
        lab.wait_ready()
        yield lab


@pytest.mark.parametrize("node", ["n1", "n2"])
def test_a_planned_restart_fails_no_new_connection(mesh: LabUnderTest, node: str) -> None:
    with mesh.start("in/client", PYTHON, "-u", "-c", STREAM, mesh.ip("in/server")) as stream:
        assert stream.stdin is not None
        assert stream.stdout is not None
        assert stream.stdout.readline() == "began\n"
        before = mesh.component(node, "ztunnel")["pid"]
        mesh.signal(before, "TERM")
        until("a new ztunnel", lambda: mesh.component(node, "ztunnel")["pid"] not in (None, before))
        until("the pods are served again", lambda: mesh.exec("in/client", "true").returncode == 0)
        out, _ = stream.communicate("\n", timeout=200)
    result = json.loads(out)
    print(node, result)
    assert result["failures"] == []
    assert result["count"] > 100
