"""A machine outside the cluster joins it: pods reach its workload, it reaches pods, both by identity, until it goes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ambient.join.machine import Machine
from ambient.lab import cgroup
from tests.cluster.lab.control_plane import join_bridge, leave_bridge
from tests.cluster.lab.plan import Plan
from tests.cluster.lab.processes import inside, run
from tests.support.kube import PATIENCE_S, SYSTEM, Kube, account, address, eventually, pod, policy, redirection, service
from tests.support.kube_apps import PORTS, client, server

SPACE = "joined"
PART = "machine"
OUTSIDE = "control-outside"
"""The Service by which the machine reaches the control plane: a NodePort, which every node has."""
_SERVES = r"""
import http.server
class Ledger(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = b'{"who": "ledger", "peer": "%s"}' % self.client_address[0].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer(("", 8080), Ledger).serve_forever()
"""


class Workload:
    """A network namespace on the network that joins the nodes, with a process in it."""

    def __init__(self, kube: Kube, lab: Plan, folder: Path) -> None:
        self.kube = kube
        self.folder = folder
        self.netns = lab.netns(PART)
        self.address = f"172.31.{lab.number}.60"
        leave_bridge(lab, PART)
        join_bridge(lab, PART, self.address)
        for node in lab.nodes():
            run(*inside(self.netns, "ip", "route", "add", lab.node_pods(node), "via", lab.node_address(node)))
        run(*inside(self.netns, "ip", "route", "add", lab.services, "via", lab.node_address(1)))
        ports = kube.get("service", OUTSIDE)["spec"]["ports"]
        self._control = f"{lab.node_address(2)}:{ports[0]['nodePort']}"
        self.server = subprocess.Popen([*inside(self.netns, sys.executable, "-c", _SERVES)])

    def join(self) -> subprocess.Popen[bytes]:
        """By a new ticket; returns when the workload is captured."""
        ticket = self.kube.ambient("ticket", "create", "--group", f"{SPACE}/ledger", "--control", self._control)
        assert ticket.returncode == 0, ticket.stderr
        (self.folder / "ticket").write_text(ticket.stdout)
        argv = ["join", "--netns", self.netns, "--ticket", self.folder / "ticket", "--state", self.folder / "state"]
        with (self.folder / "log").open("w") as log:
            process = subprocess.Popen([sys.executable, "-m", "ambient", *argv], stderr=log)
        try:
            eventually(lambda: process.poll() is not None or self._captured(), "for the workload to be captured")
            assert process.poll() is None
        except AssertionError as error:
            process.kill()
            raise AssertionError(f"{error}\n{self.log()}") from None
        return process

    def _captured(self) -> bool:
        return {redirection(one) for one in self.entries()} == {"enabled"}

    def entries(self) -> list[dict[str, Any]]:
        return self.kube.all("workloadentries", SPACE)

    def fetch(self, url: str) -> dict[str, Any]:
        """What the workload is answered; {} when it is refused."""
        words = inside(self.netns, "curl", "-sS", "-f", "-m", "8", url)
        return _read(subprocess.run(words, capture_output=True, text=True, check=False).stdout)

    def log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")[-6000:]

    def traces(self) -> list[Path]:
        """What is left of a member on its machine."""
        machine = Machine(
            self.netns, Path("/run/netns", self.netns), Path("/run/ambient/join", self.netns), self.folder
        )
        return [at for at in (machine.pins, machine.folder, cgroup.place(machine.group("join")).parent) if at.exists()]


def _read(said: str | None) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(said) if said else {}
    return found


@pytest.fixture
def workload(kube: Kube, lab: Plan, tmp_path: Path) -> Iterator[Workload]:
    """Not joined yet. In STRICT: db on n1, web on n2; a group for the machine."""
    group = {
        "metadata": {"labels": {"app": "ledger"}},
        "template": {"serviceAccount": "ledger"},
        "probe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1},
    }
    metadata = {"name": "ledger", "namespace": SPACE}
    ports = [{"name": "grpc", "port": 15012, "targetPort": 15012}]
    spec = {"type": "NodePort", "selector": {"app": "ambient-control"}, "ports": ports}
    with kube.namespace(SPACE):
        kube.apply(
            {"apiVersion": "networking.istio.io/v1", "kind": "WorkloadGroup", "metadata": metadata, "spec": group},
            {"apiVersion": "v1", "kind": "Service", "metadata": {"name": OUTSIDE, "namespace": SYSTEM}, "spec": spec},
            policy("PeerAuthentication", SPACE, "strict", {"mtls": {"mode": "STRICT"}}),
            *(account(SPACE, name) for name in ("db", "web", "ledger")),
            *(service(SPACE, name, **PORTS) for name in ("db", "ledger")),
            pod(SPACE, "db", server(kube, node="n1", account="db")),
            pod(SPACE, "web", client(node="n2", account="web")),
        )
        kube.ready(SPACE)
        made = Workload(kube, lab, tmp_path)
        try:
            yield made
        finally:
            made.server.kill()
            made.server.wait()
            leave_bridge(lab, PART)
            kube.delete("service", OUTSIDE, wait=False)


def only(app: str, who: str) -> dict[str, Any]:
    """A policy: to `app` comes nobody but `who`."""
    source = {"source": {"principals": [f"cluster.local/ns/{SPACE}/sa/{who}"]}}
    spec = {"selector": {"matchLabels": {"app": app}}, "rules": [{"from": [source]}]}
    return policy("AuthorizationPolicy", SPACE, f"only-{who}", spec)


def test_a_machine_joins_the_cluster_speaks_both_ways_by_identity_and_leaves(kube: Kube, workload: Workload) -> None:
    process = workload.join()
    try:
        # Pods reach it, in STRICT, and it sees their own address.
        eventually(lambda: kube.fetch(SPACE, "web", "http://ledger/"), "for web to reach it")
        seen = _read(kube.fetch(SPACE, "web", "http://ledger/"))
        assert seen == {"who": "ledger", "peer": address(kube.get("pod", "web", SPACE))}
        # It reaches pods, as itself.
        db = f"http://{kube.get('service', 'db', SPACE)['spec']['clusterIP']}/id"
        eventually(lambda: workload.fetch(db), "for it to reach db")
        assert workload.fetch(db)["peer"] == workload.address
        # Policies know who it is, on both ends.
        kube.apply(only("db", "ledger"), only("ledger", "db"))
        eventually(lambda: kube.fetch(SPACE, "web", "http://db/id") is None, "for web to be refused by db")
        eventually(lambda: kube.fetch(SPACE, "web", "http://ledger/") is None, "for web to be refused by it")
        assert workload.fetch(db)
        # It leaves, and nothing of it stays.
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0, workload.log()
        assert workload.entries() == []
        assert workload.traces() == []
        assert os.path.exists(f"/run/netns/{workload.netns}")
    finally:
        process.kill()
        process.wait()
