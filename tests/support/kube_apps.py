"""Applications for tests on a cluster: a server, idle clients, and a load that counts its failures."""

from __future__ import annotations

import json
from typing import Any

from ambient.cli.demo.app import SERVER
from tests.support import kube as objects
from tests.support.kube import Kube, Object, eventually

TOOLS = "localhost/tools:1"
PORTS = {"http": (80, 8080), "lines": (7000, 7000), "bytes": (7001, 7001)}
PROBE: Object = {
    "readinessProbe": {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 1, "timeoutSeconds": 10}
}
LINGER: Object = {"lifecycle": {"preStop": {"sleep": {"seconds": 4}}}}
"""What every server does that is replaced under load, with or without a mesh: go on while others hear of its end."""

_LOAD = r"""
import http.client, json, ssl, sys, threading, time
host, port, pause, tls, keep = sys.argv[1], int(sys.argv[2]), float(sys.argv[3]), "tls" in sys.argv, "keep" in sys.argv
done, failed, lock = 0, 0, threading.Lock()
def connect():
    if tls:
        return http.client.HTTPSConnection(host, port, timeout=10, context=ssl._create_unverified_context())
    return http.client.HTTPConnection(host, port, timeout=10)
def ask(connection):
    try:
        connection.request("GET", "/id", headers={} if keep else {"Connection": "close"})
        answer = connection.getresponse()
        body = answer.read()
        if keep and answer.will_close:
            return "the connection is to end"
        return "" if answer.status == 200 and body else "status %d" % answer.status
    except Exception as error:
        return repr(error)
    finally:
        if not keep:
            connection.close()
def work():
    global done, failed
    connection = connect()
    if keep:
        connection.connect()
        connection.auto_open = 0
    while True:
        began = time.time()
        why = ask(connection)
        with lock:
            done += 1
            if why:
                failed += 1
                print(json.dumps({"why": why, "at": began, "took": time.time() - began}), flush=True)
        time.sleep(pause)
for _ in range(4):
    threading.Thread(target=work, daemon=True).start()
began = time.time()
while True:
    time.sleep(0.25)
    with lock:
        print(json.dumps({"done": done, "failed": failed, "seconds": time.time() - began}), flush=True)
"""


def server(kube: Kube, *, node: str = "", account: str = "default", **container: Any) -> Object:
    """The spec of a pod that answers on 8080, 7000 and 7001."""
    argv = ("python3", "-c", SERVER)
    return objects.pod_spec(argv, kube.image, node=node, account=account, **{**PROBE, **container})


def client(*, node: str = "", account: str = "default") -> Object:
    """The spec of a pod that does nothing by itself."""
    return objects.pod_spec(("sleep", "infinity"), TOOLS, node=node, account=account)


class Load:
    """A pod that opens new connections all the time, or (`keep`) asks over a few and never opens another. It counts
    from its first answer on."""

    def __init__(
        self,
        kube: Kube,
        namespace: str,
        name: str,
        host: str,
        *,
        port: int = 80,
        node: str = "",
        tls: bool = False,
        keep: bool = False,
    ) -> None:
        self._kube = kube
        self._namespace, self._name = namespace, name
        how = ("tls",) * tls + ("keep",) * keep
        argv = ("python3", "-c", _LOAD, host, str(port), "0.05", *how)
        kube.apply(objects.pod(namespace, name, objects.pod_spec(argv, kube.image, node=node)))
        eventually(lambda: self.total["done"] > 0, f"for the load {name}")
        self.began = self.total

    @property
    def total(self) -> dict[str, float]:
        """What it counted: done, failed, seconds."""
        said = self._kube.run("-n", self._namespace, "logs", self._name, "--tail=5", check=False)
        for line in reversed(said.splitlines()):
            if line.startswith("{") and "done" in line:
                found: dict[str, float] = json.loads(line)
                return found
        return {"done": 0, "failed": 0, "seconds": 0}

    def more(self, requests: int) -> None:
        """Until so many more were tried."""
        before = self.total["done"]
        eventually(lambda: self.total["done"] >= before + requests, f"for {requests} more requests")

    def go_on(self, seconds: float) -> None:
        """Until it has run for so much longer, by its own clock."""
        before = self.total["seconds"]
        eventually(lambda: self.total["seconds"] >= before + seconds, "for the load", patience_s=seconds + 120)

    def failures(self) -> list[str]:
        """Every failure since it was made, with its time."""
        return self.failures_of(self._kube, self._namespace, self._name)

    @staticmethod
    def failures_of(kube: Kube, namespace: str, name: str) -> list[str]:
        """The same of one that another test has made."""
        said = kube.run("-n", namespace, "logs", name)
        return [line for line in said.splitlines() if '"why"' in line]
