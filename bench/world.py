"""The lab the benchmarks run in: three triples of pods, alike but for what carries their traffic.

    mesh/  client, near (node n1), far (n2), and seven more pods: captured by eBPF, carried by our ztunnel
    bare/  client, near, far: no mesh at all
    peer/  client, near, far: carried by the proxy we compare with

All live side by side for the whole run, so that the arms can alternate within seconds.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from ambient.cli.demo.stage import Stage
from ambient.cli.lab_read import exec_argv
from ambient.errors import MeshError
from ambient.lab import cgroup
from ambient.lab.lab import Lab
from ambient.lab.names import Names, lab_name
from ambient.lab.run import inside, run
from ambient.lab.teardown import down

MESH, BARE, PEER = "mesh", "bare", "peer"
HTTP, BULK = 8080, 9000
NODES: Final = ("n1", "n2")
_EXTRA: Final = 7
_SYSCTLS: Final = ("net.ipv4.ip_local_port_range=20000 65000", "net.ipv4.tcp_tw_reuse=1")
"""So that thousands of new connections per second do not run out of ports: the same in every pod of every arm."""
_CONGESTION: Final = Path("/proc/sys/net/ipv4/tcp_congestion_control")
CONGESTION: Final = "cubic"
"""Linux's own default, for every arm. BBR, which some machines are set to, sends at a rate that it believes in and by
timers: between two pods of one machine bulk is then what it believes."""


def objects(binary: Path) -> list[dict[str, Any]]:
    """The Kubernetes objects of the lab."""
    found: list[dict[str, Any]] = []
    for namespace in (MESH, BARE, PEER):
        labels = {"istio.io/dataplane-mode": "ambient"} if namespace == MESH else {}
        found.append(_object("Namespace", namespace, "", labels=labels))
        for name, node in (("client", "n1"), ("near", "n1"), ("far", "n2")):
            found.append(_object("ServiceAccount", name, namespace))
            serve = [str(binary), "serve", str(HTTP), str(BULK)]
            found.append(_pod(name, namespace, node, ["sleep", "infinity"] if name == "client" else serve))
    for number in range(_EXTRA):
        found.append(_pod(f"idle-{number}", MESH, NODES[number % 2], ["sleep", "infinity"], account="default"))
    return found


def _object(kind: str, name: str, namespace: str, labels: dict[str, str] | None = None) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name, "labels": labels or {}}
    if namespace:
        metadata["namespace"] = namespace
    return {"apiVersion": "v1", "kind": kind, "metadata": metadata}


def _pod(name: str, namespace: str, node: str, command: list[str], account: str = "") -> dict[str, Any]:
    spec = {
        "nodeName": node,
        "serviceAccountName": account or name,
        "terminationGracePeriodSeconds": 1,
        "containers": [{"name": "main", "command": command}],
    }
    return {**_object("Pod", name, namespace), "spec": spec}


class World:
    """The lab, up."""

    def __init__(self, names: Names, binary: Path, stage: Stage) -> None:
        self.names = names
        self.stage = stage
        self.lab = Lab(names)
        self.binary = binary

    def address(self, pod: str) -> str:
        """The IPv4 address of "namespace/name"."""
        return next(str(ip) for ip in self.lab.pod(pod).ips if ip.version == 4)

    def netns(self, pod: str) -> Path:
        """The file of the pod's network namespace."""
        namespace, _, name = pod.partition("/")
        return Path("/run/netns") / self.names.pod(namespace, name)

    def node_netns(self, node: str) -> str:
        return self.names.node(node)

    def load(self, pod: str, mode: str, host: str, port: int, connections: int, seconds: float) -> dict[str, float]:
        """Run the load generator in a pod; what it prints. Raises MeshError when it fails."""
        command = [str(self.binary), mode, host, str(port), str(connections), str(seconds)]
        argv = exec_argv(self.lab, self.lab.pod(pod), command)
        done = subprocess.run(argv, capture_output=True, text=True, timeout=seconds + 20, check=False)
        if done.returncode:
            raise MeshError("load generator", pod, (done.stderr or done.stdout).strip())
        found: dict[str, float] = json.loads(done.stdout)
        return found

    def ztunnel_pids(self) -> list[int]:
        """Every process of the ztunnels of both nodes."""
        groups = [cgroup.place(self.names.component_cgroup(node, "ztunnel")) for node in NODES]
        return sorted(pid for group in groups for pid in cgroup.pids(group))

    def agent_pids(self) -> list[int]:
        groups = [cgroup.place(self.names.component_cgroup(node, "agent")) for node in NODES]
        return sorted(pid for group in groups for pid in cgroup.pids(group))

    def _tune(self) -> None:
        for namespace in (MESH, BARE, PEER):
            for name in ("client", "near", "far"):
                run([*inside(self.names.pod(namespace, name)), "sysctl", "-qw", *_SYSCTLS])


@contextmanager
def _congestion() -> Iterator[None]:
    """Network namespaces that are made meanwhile have CONGESTION from this machine's; it is put back at once. Another
    bench waits, or it would put back what this one has set."""
    with _CONGESTION.open() as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        before = held.read()
        _CONGESTION.write_text(CONGESTION)
        try:
            yield
        finally:
            _CONGESTION.write_text(before)


@contextmanager
def world(workers: int, folder: Path, env: Sequence[str] = (), suffix: str = "") -> Iterator[World]:
    """Build the load generator and the lab; it is down afterwards whatever happens. `suffix` names a second one."""
    binary = folder / f"load{suffix}"
    source = Path(__file__).with_name("load.c")
    compiler = next((name for name in ("cc", "clang", "gcc") if shutil.which(name)), "cc")
    run([compiler, "-O2", "-Wall", "-Wextra", "-o", str(binary), str(source)])
    names = Names(lab_name(f"bench-{os.getpid()}{suffix}"))
    stage = Stage(names.lab)
    settings = [f"ztunnel:ZTUNNEL_WORKER_THREADS={workers}", *env]
    try:
        with _congestion():
            stage.must("lab", "up", "--name", names.lab, *(f"--env={setting}" for setting in settings))
            stage.apply("\n---\n".join(json.dumps(item) for item in objects(binary)))
        built = World(names, binary, stage)
        built._tune()
        yield built
    finally:
        down(names)
