"""Thousands of connections one after the other, each seen under its client's address, none of them held up.

The proxy speaks as the client from a port of its own. A port that leads to another connection, or to what is left of
one, would cost a second or more, many times, because its first packet is sent again: that is what is looked for here,
whoever ends the connections. How long anything takes says more of the machine.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from ambient.cli.demo.stage import PYTHON
from tests.support.lab import SLEEP, LabUnderTest, lab_under_test, namespace_yaml, pod_yaml

CONNECTIONS = 3_000
SERVER = r"""
import socket, socketserver
class Who(socketserver.BaseRequestHandler):
    def handle(self):
        mode = self.request.recv(1)
        self.request.sendall(self.client_address[0].removeprefix("::ffff:").encode() + b"\n")
        if mode == b"c":
            self.request.recv(1)
class Server(socketserver.TCPServer):
    address_family, allow_reuse_address, request_queue_size = socket.AF_INET6, True, 128
Server(("::", 7002), Who).serve_forever()
"""
CLIENT = r"""
import collections, json, socket, sys
host, times, mode = sys.argv[1], int(sys.argv[2]), sys.argv[3].encode()
seen, failures = collections.Counter(), []
for _ in range(times):
    try:
        with socket.create_connection((host, 7002), 60) as s:
            s.sendall(mode)
            seen[s.makefile().readline().strip()] += 1
            if mode == b"s":
                s.recv(1)
    except OSError as error:
        failures.append(str(error))
print(json.dumps(dict(seen=seen, failures=failures)))
"""
REPEATED = r"""
names, values = [line.split() for line in open("/proc/net/netstat") if line.startswith("TcpExt:")]
print(dict(zip(names, values))["TCPSynRetrans"])
"""
"""How many first packets of connections were sent again in a pod's namespace, the proxy's with the pod's."""


@pytest.fixture(scope="module")
def mesh() -> Iterator[LabUnderTest]:
    with lab_under_test("ports") as lab:
        ready = {"tcpSocket": {"port": 7002}, "periodSeconds": 1}
        lab.up(
            namespace_yaml("in", **{"istio.io/dataplane-mode": "ambient"})
            + namespace_yaml("out")
            + pod_yaml("in/server", [PYTHON, "-u", "-c", SERVER], node="n2", readiness=ready)
            + pod_yaml("in/client", SLEEP, node="n1")
            + pod_yaml("out/client", SLEEP, node="n1"),
            mesh=True,
        )
        lab.wait_ready()
        yield lab


def repeated(mesh: LabUnderTest, client: str) -> int:
    """At both ends, since the pods began."""
    pods = (client, "in/server")
    return sum(int(mesh.must("exec", pod, "--", PYTHON, "-c", REPEATED)) for pod in pods)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("ends", ["client", "server"])
@pytest.mark.parametrize("client", ["in/client", "out/client"])
def test_many_connections_are_not_held_up_and_each_keeps_its_address(
    mesh: LabUnderTest, client: str, ends: str, version: int
) -> None:
    times = CONNECTIONS if version == 4 else CONNECTIONS // 3
    words = [mesh.ip("in/server", version), str(times), ends[0]]
    before = repeated(mesh, client)
    done = mesh.exec(client, PYTHON, "-c", CLIENT, *words, timeout_s=300)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    again = repeated(mesh, client) - before
    print(client, ends, version, result, again)
    assert result["failures"] == []
    assert result["seen"] == {mesh.ip(client, version): times}
    # One may be lost on a busy machine; for ports that are taken it is sent again and again.
    assert again <= times // 1_000
