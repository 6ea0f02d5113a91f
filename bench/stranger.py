"""Any ztunnel that understands Istio's local configuration variables, as the peer to compare with.

One process per pod in dedicated mode, inside the pod's network namespace, configured by a file (LOCAL_XDS_PATH) with
certificates of its own making (FAKE_CA, which only testing builds honour). What the client dials is handed to it by an
nftables redirect for everybody but its own user. It runs as a user of its own so that the redirect can tell.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Final

from ambient.errors import Unavailable
from ambient.lab.run import inside, run
from bench.arms import Arm
from bench.world import HTTP, PEER, World

USER: Final = 1337
_PODS: Final = (("client", "n1"), ("near", "n1"), ("far", "n2"))
_CAPABILITIES: Final = "+net_admin,+net_raw,+net_bind_service"
_READY_S: Final = 20.0
_RULES: Final = f"""
add table inet bench
add chain inet bench out {{ type nat hook output priority -100; }}
add rule inet bench out meta skuid != {USER} ip daddr != 127.0.0.0/8 meta l4proto tcp redirect to :15001
"""


def local_state(world: World) -> dict[str, Any]:
    """The pods of the peer arm in the form of Istio's local file."""
    workloads = [
        {
            "uid": f"Kubernetes//Pod/{PEER}/{name}",
            "name": name,
            "namespace": PEER,
            "serviceAccount": name,
            "trustDomain": "cluster.local",
            "clusterId": "Kubernetes",
            "node": node,
            "network": "",
            "protocol": "HBONE",
            "status": "Healthy",
            "workloadIps": [world.address(f"{PEER}/{name}")],
        }
        for name, node in _PODS
    ]
    return {"workloads": workloads, "policies": [], "services": []}


def environment(pod: str, node: str, state: Path, workers: int) -> dict[str, str]:
    """Istio's names."""
    return {
        "PROXY_MODE": "dedicated",
        "PROXY_WORKLOAD_INFO": f"{PEER}/{pod}/{pod}",
        "LOCAL_XDS_PATH": str(state),
        "FAKE_CA": "true",
        "XDS_ADDRESS": "",
        "CA_ADDRESS": "",
        "NODE_NAME": node,
        "CLUSTER_ID": "Kubernetes",
        "TRUST_DOMAIN": "cluster.local",
        "ZTUNNEL_WORKER_THREADS": str(workers),
        "RUST_LOG": "info",
    }


@contextmanager
def running(world: World, workers: int, folder: Path, binary: Path) -> Iterator[Arm]:
    """One process for each pod, serving; ended afterwards. Raises Unavailable with what it said."""
    state = folder / "local.yaml"
    state.write_text(json.dumps(local_state(world)))  # every JSON text is a YAML text
    folder.chmod(0o755)
    state.chmod(0o644)
    privileges = ["setpriv", "--reuid", str(USER), "--clear-groups", "--inh-caps", _CAPABILITIES]
    privileges += ["--ambient-caps", _CAPABILITIES, "--"]
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for pod, node in _PODS:
            netns = world.names.pod(PEER, pod)
            run([*inside(netns), "nft", "-f", "-"], _RULES)
            with open(folder / f"{pod}.log", "wb") as log:
                argv = [*inside(netns), *privileges, str(binary)]
                env = environment(pod, node, state, workers)
                processes.append(subprocess.Popen(argv, env=env, stdout=log, stderr=log))
        pids = [process.pid for process in processes]
        arm = Arm(
            binary.name,
            f"{PEER}/client",
            lambda server, port: (world.address(f"{PEER}/{server}"), port),
            lambda: pids,
        )
        _wait(world, arm, processes, folder)
        yield arm
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _wait(world: World, arm: Arm, processes: list[subprocess.Popen[bytes]], folder: Path) -> None:
    deadline = monotonic() + _READY_S
    for server in ("far", "near"):
        while True:
            answered = world.load(arm.client, "crr", *arm.reach(server, HTTP), 1, 0.05)
            if answered["count"] and not answered["errors"]:
                break
            if monotonic() > deadline or any(process.poll() is not None for process in processes):
                said = "\n".join((folder / f"{pod}.log").read_text(errors="replace")[-800:] for pod, _ in _PODS)
                raise Unavailable(arm.title, f"does not serve {server}", said)
            sleep(0.2)
