"""One node for the agent's tests: the capture world, a folder of objects, a real agent process and a stand-in for
ztunnel as a process of its own. Needs root. Waiting is done by asking again until a deadline.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from ambient.datapath import nft, pod_net, programs
from ambient.kube.folder import ObjectFolder
from ambient.kube.objects import parse_object
from ambient.kube.records import Pod, record_key
from ambient.lab import credentials
from ambient.netns import entered
from tests.support import leavings
from tests.support.capture_world import Place, World, run, world

T = TypeVar("T")

PATIENCE_S = 90.0
ANNOTATION = "ambient.istio.io/redirection"
AGENT_ONLY = frozenset({"AMBIENT_RELEASE_LINGER", "AMBIENT_SWEEP"})


def eventually(probe: Callable[[], T], what: str, patience_s: float = PATIENCE_S) -> T:
    """The first true answer of `probe`; AssertionError with its last answer when there is none in time."""
    pause = threading.Event()
    answer = probe()
    for _ in range(int(patience_s / 0.02)):
        if answer:
            return answer
        pause.wait(0.02)
        answer = probe()
    raise AssertionError(f"{what}: not within {patience_s} s, last answer {answer!r}")


def namespace(name: str, mode: str = "", more: Mapping[str, str] = MappingProxyType({})) -> dict[str, Any]:
    labels = {"istio.io/dataplane-mode": mode, **more} if mode else dict(more)
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def pod(name: str, ips: list[str], **metadata: Mapping[str, str]) -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "shop", **metadata},
        "spec": {"nodeName": "n1", "serviceAccountName": "seller", "containers": [{"name": "app", "image": "none"}]},
        "status": {"phase": "Running", "podIPs": [{"ip": ip} for ip in ips]},
    }


@dataclass
class Process:
    """A child whose output goes to a file."""

    popen: subprocess.Popen[bytes]
    output: Path

    def text(self) -> str:
        return self.output.read_text(errors="replace")

    def wait_for(self, words: str, times: int = 1) -> None:
        eventually(lambda: self.text().count(words) >= times, f"{words!r} in the output:\n{self.text()}")

    def end(self, number: int = signal.SIGTERM) -> int:
        if self.popen.poll() is None:
            self.popen.send_signal(number)
        return self.popen.wait(PATIENCE_S)


@dataclass
class AgentLab:
    world: World
    root: Path
    bpffs: Path
    settings: dict[str, str] = field(default_factory=dict)
    processes: list[Process] = field(default_factory=list)

    @property
    def folder(self) -> ObjectFolder:
        return ObjectFolder(self.root / "objects")

    @property
    def zds(self) -> Path:
        return self.root / "zds.sock"

    def environment(self) -> dict[str, str]:
        return {
            **os.environ,
            "NODE_NAME": "n1",
            "ZTUNNEL_UDS_ADDRESS": str(self.zds),
            "AMBIENT_CUSTODY_UDS": str(self.root / "custody.sock"),
            "AMBIENT_OBJECTS": str(self.root / "objects"),
            "AMBIENT_BPFFS": str(self.bpffs),
            "AMBIENT_STATE_DIR": str(self.root / "state"),
            "AMBIENT_POD_NETNS": f"/run/netns/{self.world.prefix}-{{name}}",
            "AMBIENT_LOADER": "object",
            "AMBIENT_NODE_CGROUP": str(self.world.cgroup["node"]),
            "AMBIENT_KUBELET_CGROUP": str(self.world.cgroup["kubelet"]),
            "AMBIENT_RELEASE_LINGER": "50ms",
            "AMBIENT_SWEEP": "250ms",
            **self.settings,
        }

    def start(self, *command: str, netns: bool = True, without: frozenset[str] = frozenset()) -> Process:
        enter = ["nsenter", f"--net=/run/netns/{self.world.prefix}-node"] if netns else []
        output = self.root / f"output-{len(self.processes)}"
        with output.open("wb") as sink:
            popen = subprocess.Popen(
                [*enter, sys.executable, *command],
                env={name: value for name, value in self.environment().items() if name not in without},
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                cwd=Path(__file__).parents[2],
            )
        process = Process(popen, output)
        self.processes.append(process)
        return process

    def agent(self, *arguments: str) -> Process:
        return self.start("-m", "ambient.agent", *arguments)

    def agent_that_dies(self, where: str) -> Process:
        """An agent that is killed (SIGKILL) at a checkpoint."""
        return self.start("-m", "tests.support.agent_that_dies", where)

    def control(self) -> Process:
        """A control plane over the same objects; agents started from now on subscribe to it."""
        folder = self.root / "credentials"
        folder.mkdir()
        credentials.make_ca(folder)
        credentials.make_token_key(folder)
        (folder / "token").write_text(credentials.node_token(folder, "n1", "agent"))
        address = f"{self.world.node.ip(4)}:15012"
        self.settings |= {
            "AMBIENT_CA_DIR": str(folder),
            "AMBIENT_TOKEN_KEY": str(folder / "token-public.pem"),
            "AMBIENT_XDS_LISTEN": address,
            "AMBIENT_HTTP_LISTEN": f"{self.world.node.ip(4)}:15014",
        }
        process = self.start("-m", "ambient.control", without=AGENT_ONLY)
        self.settings |= {
            "XDS_ADDRESS": f"https://{address}",
            "XDS_ROOT_CA": str(folder / "root-cert.pem"),
            "ALT_XDS_HOSTNAME": "istiod.istio-system.svc",
            "AUTH_TOKEN": str(folder / "token"),
        }
        return process

    def ztunnel(self, *arguments: str) -> Process:
        cgroup = str(self.world.cgroup["ztunnel"])
        return self.start(
            "-m", "tests.support.zds_stand_in", "--socket", str(self.zds), "--cgroup", cgroup, *arguments, netns=False
        )

    def put(self, *objects: Mapping[str, Any]) -> int:
        return self.folder.put([parse_object(raw, "test") for raw in objects])

    def delete(self, kind: str, name: str) -> int:
        return self.folder.delete([record_key(kind, "" if kind == "Namespace" else "shop", name)])

    def shown(self, name: str) -> str | None:
        """The redirection annotation of a pod."""
        found = self.folder.records().find(Pod, "shop", name)
        return None if found is None else found.annotations.get(ANNOTATION)

    def uid(self, name: str) -> str:
        found = self.folder.records().find(Pod, "shop", name)
        assert found is not None
        return found.uid

    def http(self, method: str, path: str) -> tuple[int, str]:
        with entered(self.world.node.netns):
            try:
                sock = socket.create_connection(("127.0.0.1", 15099), PATIENCE_S)
            except ConnectionRefusedError:
                return 0, ""
        connection = http.client.HTTPConnection("agent")
        connection.sock = sock
        with contextlib.closing(connection):
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def pods(self) -> dict[str, Any]:
        """What GET /pods says, by pod name; {} while nobody answers."""
        status, body = self.http("GET", "/pods")
        return {one["pod"]: one for one in json.loads(body)["pods"]} if status == 200 else {}

    def settled(self, revision: int) -> None:
        def observed() -> bool:
            writer = self.folder.records().writers.get("agent-n1")
            return writer is not None and writer.observed >= revision

        eventually(observed, f"revision {revision} observed; the agent says:\n{self.processes[0].text()}")

    def enrolled(self, name: str) -> None:
        eventually(lambda: self.shown(name) == "enabled", f"{name} enrolled")

    def connect(
        self, place: Place, target: Place, port: int, version: int = 4, patience_s: float = 60.0
    ) -> socket.socket:
        """A connection of an application in one place to another place; raises OSError."""
        family = socket.AF_INET6 if version == 6 else socket.AF_INET
        made = self.world.socket(place, family)
        made.settimeout(patience_s)
        try:
            made.connect((str(target.ip(version)), port))
        except BaseException:
            made.close()
            raise
        return made


@contextlib.contextmanager
def settled_world(prefix: str) -> Iterator[World]:
    """A world in which every IPv6 address may be used."""
    leavings.collect()
    with world(prefix) as made:
        for place in made.places.values():
            with entered(place.netns):
                eventually(lambda: not run("ip", "-6", "addr", "show", "tentative"), f"addresses of {place.name}")
        yield made


@contextlib.contextmanager
def agent_lab(made: World, **settings: str) -> Iterator[AgentLab]:
    """A fresh node in a world that may be used again afterwards."""
    bpffs = Path("/sys/fs/bpf") / made.prefix
    root = Path(tempfile.mkdtemp(prefix=f"{made.prefix}-"))
    lab = AgentLab(made, root, bpffs, settings)
    try:
        yield lab
    finally:
        for process in lab.processes:
            process.end(signal.SIGKILL)
        programs.unload(bpffs)
        for place in made.places.values():
            nft.remove(place.netns)
            pod_net.restore(place.netns, pod_net.PodNet("0"))
        shutil.rmtree(root)


@contextlib.contextmanager
def whole_mesh(made: World, *objects: Mapping[str, Any]) -> Iterator[AgentLab]:
    """A node with control plane, ztunnel and agent, once all of them know the objects."""
    with agent_lab(made) as lab:
        lab.control()
        lab.ztunnel()
        lab.agent()
        lab.settled(lab.put(*objects))
        yield lab
