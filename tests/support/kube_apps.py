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
import http.client, json, sys, threading, time
host, port, pause = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
done, failed, lock = 0, 0, threading.Lock()
def ask():
    connection = http.client.HTTPConnection(host, port, timeout=10)
    try:
        connection.request("GET", "/id", headers={"Connection": "close"})
        answer = connection.getresponse()
        body = answer.read()
        return "" if answer.status == 200 and body else "status %d" % answer.status
    except Exception as error:
        return repr(error)
    finally:
        connection.close()
def work():
    global done, failed
    while True:
        began = time.time()
        why = ask()
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
    """A pod that opens new connections all the time. It counts from its first answer on."""

    def __init__(self, kube: Kube, namespace: str, name: str, host: str, *, port: int = 80, node: str = "") -> None:
        self._kube = kube
        self._namespace, self._name = namespace, name
        argv = ("python3", "-c", _LOAD, host, str(port), "0.05")
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
        said = self._kube.run("-n", self._namespace, "logs", self._name)
        return [line for line in said.splitlines() if '"why"' in line]
