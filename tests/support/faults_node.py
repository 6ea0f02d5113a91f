"""Faults of a node's surroundings: frozen control plane, full disk, no descriptors, a reused address, a network that
loses or shrinks packets. Each is there inside its context and lifted, or over by itself, behind it."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from signal import SIGKILL
from time import monotonic
from typing import Final

import psutil

from ambient.kube.objects import Node
from ambient.lab import cgroup, network
from ambient.lab.run import run
from tests.support.faults import Fault, Scene
from tests.support.journey import FAR, LINES, WEB, Journey, account, policy, server
from tests.support.lab import pod_yaml, until
from tests.support.survival import ATTEMPTS, TRY_S, running

SHORT_S: Final = 3.0
LONG_S: Final = 6.0

FLOOD: Final = r"""
import socket, sys
host, port, count = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
held, failed = [], 0
for _ in range(count):
    try:
        s = socket.create_connection((host, port), 0.5)
        s.settimeout(0.5)
        if not s.recv(1):
            raise OSError("ended")
        held.append(s)
    except OSError:
        failed += 1
        if failed > 5:
            break
print(len(held), failed, flush=True)
sys.stdin.read()
"""


def lasting(seconds: float) -> None:
    """Let the fault last."""
    end = monotonic() + seconds
    until("the fault has lasted", lambda: monotonic() > end, seconds + 5)


@contextmanager
def _control_frozen(scene: Scene) -> Iterator[None]:
    pids = scene.mesh.lab.status()["control"]["pids"]
    for pid in pids:
        scene.mesh.lab.signal(pid, "STOP")
    try:
        yield
        lasting(SHORT_S)
    finally:
        for pid in pids:
            scene.mesh.lab.signal(pid, "CONT")


def node_folder(mesh: Journey, node: str) -> Path:
    lab = mesh.lab.lab
    found = lab.records().find(Node, "", node)
    assert found is not None
    return mesh.lab.names.node_folder(lab.settings.plan.node_number(found.pod_cidrs))


@contextmanager
def _full(folder: Path) -> Iterator[None]:
    """A full disk of its own lies over the folder meanwhile, with what was in it."""
    kept = folder.with_suffix(".kept")
    shutil.copytree(folder, kept)
    run(["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(folder)])
    try:
        shutil.copytree(kept, folder, dirs_exist_ok=True)
        with open(folder / "filler", "wb", buffering=0) as filler, suppress(OSError):
            while filler.write(bytes(4096)):
                pass
        yield
    finally:
        run(["umount", "-l", str(folder)])
        shutil.rmtree(kept)


@contextmanager
def _disk_full(scene: Scene) -> Iterator[None]:
    """Meanwhile discovery changes, so that the snapshot is written in vain, and a director starts from the old one."""
    mesh, folder = scene.mesh, node_folder(scene.mesh, scene.node)
    log = mesh.lab.names.log(scene.node, "ztunnel")
    before = log.stat().st_size
    more = policy("more", "DENY", [{"from": [{"source": {"namespaces": ["nowhere"]}}]}])
    with ExitStack() as stack:
        for part in ("ztunnel", "agent"):
            stack.enter_context(_full(folder / part))
        yield
        mesh.lab.apply(more)
        until("saving fails", lambda: b"No space left" in log.read_bytes()[before:])
        for pid in running(mesh, scene.node, "ztunnel.director"):
            mesh.lab.signal(pid, "KILL")
        mesh.lab.delete(more)


@contextmanager
def _few_descriptors(scene: Scene) -> Iterator[None]:
    """Each worker may open 40 more; 100 connections want them, then go. Nobody lifts the limit before all is well."""
    mesh, load = scene.mesh, scene.load
    pids = running(mesh, scene.node, "ztunnel.worker")
    limits = {pid: resource.prlimit(pid, resource.RLIMIT_NOFILE) for pid in pids}
    flood = mesh.lab.start(WEB, "/usr/bin/python3", "-c", FLOOD, mesh.host(FAR, 4), str(LINES), "100")
    try:
        for pid in pids:
            most = psutil.Process(pid).num_fds() + 40
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (most, limits[pid][1]))
        yield
        assert flood.stdout is not None
        held, failed = map(int, flood.stdout.readline().split())
        assert failed, f"{held} connections and the limit was not reached"
    finally:
        flood.communicate("")
    load.settles(monotonic())
    for pid, limit in limits.items():
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limit)


@contextmanager
def _address_reused(scene: Scene) -> Iterator[None]:
    """Pods with one address follow each other: one that may reach far, one that policy refuses, one outside, and one
    that may again. Each tries from its first instruction on."""
    mesh = scene.mesh
    plan = mesh.lab.lab.settings.plan.pods(1)
    ips = f"{plan.v4.network_address + 200},{plan.v6.network_address + 200}"

    def tenant(pod: str, name: str) -> str:
        words = ["0.05", str(TRY_S), "reuse", str(LINES), mesh.host(FAR, 4), mesh.host(FAR, 6)]
        command = ["/usr/bin/python3", "-u", "-c", ATTEMPTS, *words]
        return pod_yaml(pod, command, node="n1", annotations={"ambient.mesh/pod-ips": ips}, account=name, grace=0)

    def events(pod: str) -> list[dict[str, object]]:
        path = mesh.lab.names.pod_log(*pod.split("/"), "main")
        lines = path.read_text().splitlines() if path.exists() else []
        return [json.loads(line) for line in lines if line.startswith("{") and line.endswith("}")]

    yield
    for turn, (pod, name, allowed) in enumerate(
        [
            ("shop/tenant-a", "web", True),
            ("shop/tenant-b", "batch", False),
            ("plain/tenant-c", "default", False),
            ("shop/tenant-d", "web", True),
        ]
    ):
        text = tenant(pod, name)
        mesh.lab.must("apply", "--no-wait", "-f", "-", text=text)
        if allowed:
            until(f"{pod} is let in", lambda pod=pod: any(e["heard"] for e in events(pod)))  # type: ignore[misc]
        else:
            until(f"{pod} has tried", lambda pod=pod: len(events(pod)) > 20)  # type: ignore[misc]
            assert not any(e["heard"] for e in events(pod)), f"{pod} (turn {turn}) was let in under the address it got"
        mesh.lab.delete(text)


@contextmanager
def _netns_deleted(scene: Scene) -> Iterator[None]:
    """Of a server with an open connection, its processes killed with it; then its object goes as well."""
    mesh = scene.mesh
    text = account("victim") + server("shop/victim", "n2", account="victim")
    mesh.lab.apply(text)
    mesh.lab.wait_ready("shop/victim")
    pod = mesh.lab.pod("shop/victim")
    with mesh.stage.talk(WEB, mesh.host("shop/victim", 4), LINES) as talk:
        assert talk.next().startswith("got hello")
        network.remove(mesh.lab.names.pod("shop", "victim"))
        cgroup.signal_all(cgroup.place(mesh.lab.names.pod_cgroup("n2", pod.uid)), SIGKILL)
        yield
        assert talk.next(20).startswith(("closed", "ended"))
    mesh.lab.delete(text)


def _nft(netns: str, text: str) -> None:
    subprocess.run(["nsenter", f"--net=/run/netns/{netns}", "nft", "-f", "-"], input=text, text=True, check=True)


def _loss(percent: int, seconds: float) -> Callable[[Scene], AbstractContextManager[None]]:
    @contextmanager
    def lose(scene: Scene) -> Iterator[None]:
        """Of what arrives at either node from the other."""
        names = scene.mesh.lab.names
        rules = f"""table inet fault {{
            chain lose {{
                type filter hook prerouting priority -400
                iifname "eth0" numgen random mod 100 < {percent} drop
            }}
        }}"""
        for node in ("n1", "n2"):
            _nft(names.node(node), rules)
        try:
            yield
            lasting(seconds)
        finally:
            for node in ("n1", "n2"):
                _nft(names.node(node), "delete table inet fault")

    return lose


@contextmanager
def _small_mtu(scene: Scene) -> Iterator[None]:
    """Both nodes' links take 1280 bytes only, all of a sudden."""
    nodes = [scene.mesh.lab.names.node(node) for node in ("n1", "n2")]
    for node in nodes:
        run(["nsenter", f"--net=/run/netns/{node}", "ip", "link", "set", "eth0", "mtu", "1280"])
    try:
        yield
        lasting(SHORT_S)
    finally:
        for node in nodes:
            run(["nsenter", f"--net=/run/netns/{node}", "ip", "link", "set", "eth0", "mtu", "1500"])


SURROUNDINGS: Final = (
    Fault("control plane frozen", _control_frozen, "go on", "go on", 1.0),
    Fault("disk full", _disk_full, "go on", "go on", 1.0),
    Fault("descriptor limit reached", _few_descriptors, "go on", "may fail", 5.0),
    Fault("a pod's address reused at once", _address_reused, "go on", "go on", 1.0),
    Fault("network namespace deleted under a connection", _netns_deleted, "go on", "go on", 1.0),
    Fault("1 % of packets lost", _loss(1, LONG_S), "go on", "go on", 5.0),
    Fault("30 % of packets lost", _loss(30, LONG_S), "go on", "may fail", 15.0),
    Fault("MTU drops to 1280", _small_mtu, "go on", "go on", 5.0),
)
