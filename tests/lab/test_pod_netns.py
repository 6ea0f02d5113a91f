"""Finding pods by real processes, control groups and interfaces."""

from __future__ import annotations

import os
import signal
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from ambient.agent import podns
from ambient.agent.processes import PodProcesses
from ambient.datapath import cgroups, pod_net
from ambient.errors import KernelError, Unavailable
from tests.support.capture_world import run

WAITS = ("sh", "-c", "echo here; exec cat")
PREFIX = f"amb-pn-{os.getpid()}"


class Pods:
    """Pods as a kubelet with the systemd driver leaves them in /proc: a control group and processes in it."""

    def __init__(self, stack: ExitStack) -> None:
        mount = cgroups.mount_point()
        assert mount is not None
        self.stack = stack
        self.root = mount / f"{PREFIX}.slice"
        self.root.mkdir()
        stack.callback(self.root.rmdir)
        self.children: list[subprocess.Popen[bytes]] = []

    def start(self, uid: str, *command: str) -> subprocess.Popen[bytes]:
        """A process of the pod."""
        group = self.root / f"kubepods-pod{uid.replace('-', '_')}.slice"
        if not group.exists():
            group.mkdir()
            self.stack.callback(group.rmdir)
        process = subprocess.Popen(
            [
                "sh",
                "-c",
                f'echo $$ >{group}/cgroup.procs; exec "$@"',
                "sh",
                *command,
                "sh",
                "-c",
                "echo here; exec cat",
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self.stack.callback(self.end, process)
        assert process.stdout is not None
        assert process.stdout.readline() == b"here\n"
        return process

    def end(self, process: subprocess.Popen[bytes]) -> None:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.wait()
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()


@pytest.fixture
def pods() -> Iterator[Pods]:
    with ExitStack() as stack:
        yield Pods(stack)


def inode(fd: int) -> int:
    number = os.fstat(fd).st_ino
    os.close(fd)
    return number


def netns_of(process: subprocess.Popen[bytes]) -> int:
    return os.stat(f"/proc/{process.pid}/ns/net").st_ino


def test_a_pod_is_found_by_its_control_group_and_its_sandbox_counts(pods: Pods) -> None:
    uid = str(uuid.uuid4())
    sandbox = pods.start(uid, "unshare", "--net")
    pods.start(uid, "unshare", "--net")
    pods.start(str(uuid.uuid4()), "unshare", "--net")
    assert inode(PodProcesses().open_netns(uid)) == netns_of(sandbox)


def test_a_pod_on_the_nodes_network_has_no_namespace_of_its_own(pods: Pods) -> None:
    uid = str(uuid.uuid4())
    pods.start(uid, "env")
    with pytest.raises(Unavailable, match="no process of the pod"):
        PodProcesses().open_netns(uid)


def test_what_was_opened_stays_the_same_namespace_when_the_sandbox_is_another_one(pods: Pods) -> None:
    uid = str(uuid.uuid4())
    processes = PodProcesses()
    first = pods.start(uid, "unshare", "--net")
    held = podns.adopt_netns(processes.open_netns(uid), uid)
    pods.end(first)
    with pytest.raises(Unavailable):
        processes.open_netns(uid)
    pods.start(uid, "unshare", "--net")
    second = podns.adopt_netns(processes.open_netns(uid), uid)
    assert held.cookie != second.cookie
    held.close()
    second.close()


@pytest.fixture
def namespaces() -> Iterator[tuple[int, int]]:
    """A node's and a pod's, not connected."""
    with ExitStack() as stack:
        opened = []
        for name in ("node", "pod"):
            run("ip", "netns", "add", f"{PREFIX}-{name}")
            stack.callback(run, "ip", "netns", "del", f"{PREFIX}-{name}")
            fd = os.open(f"/run/netns/{PREFIX}-{name}", os.O_RDONLY)
            stack.callback(os.close, fd)
            opened.append(fd)
        yield opened[0], opened[1]


def inside(place: str, *command: str) -> None:
    run("nsenter", f"--net=/run/netns/{PREFIX}-{place}", *command)


def test_the_nodes_end_of_a_pods_veth_is_found(namespaces: tuple[int, int]) -> None:
    node, pod = namespaces
    inside("node", "ip", "link", "add", "v0", "type", "veth", "peer", "name", "eth0", "netns", f"{PREFIX}-pod")
    found = pod_net.peer_ifindex(pod, host=node)
    assert f"{found}: v0@" in run("nsenter", f"--net=/run/netns/{PREFIX}-node", "ip", "link")


@pytest.mark.parametrize("kind", ["macvlan", "bridge"])
def test_a_pod_on_something_else_than_a_veth_is_refused(namespaces: tuple[int, int], kind: str) -> None:
    """Its "other end" would be the node's own card, and all traffic of the node would be judged."""
    node, pod = namespaces
    inside("node", "ip", "link", "add", "card", "type", "veth", "peer", "name", "cable")
    link = ("link", "card") if kind == "macvlan" else ()
    inside("node", "ip", "link", "add", *link, "name", "p0", "type", kind)
    if kind == "macvlan":
        inside("node", "ip", "link", "set", "p0", "netns", f"{PREFIX}-pod", "name", "eth0")
    else:
        inside("pod", "ip", "link", "add", "eth0", "type", kind)
    with pytest.raises(KernelError, match=f"it is a {kind}"):
        pod_net.peer_ifindex(pod, host=node)


def test_a_veth_that_does_not_lead_to_the_node_is_refused(namespaces: tuple[int, int]) -> None:
    node, pod = namespaces
    inside("pod", "ip", "link", "add", "eth0", "type", "veth", "peer", "name", "inner")
    inside("node", "ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1")
    with pytest.raises(KernelError, match="its other end is elsewhere"):
        pod_net.peer_ifindex(pod, host=node)
    # Sabotage: without looking back the number would have named an interface of the node.
    named = pod_net.peer_ifindex(pod)
    assert f"{named}: v" in run("nsenter", f"--net=/run/netns/{PREFIX}-node", "ip", "link")


def test_a_pod_without_an_interface_is_refused(namespaces: tuple[int, int]) -> None:
    with pytest.raises(KernelError, match="there is none"):
        pod_net.peer_ifindex(namespaces[1], host=namespaces[0])


def test_the_nodes_own_namespace_is_no_pods() -> None:
    with pytest.raises(Unavailable, match="the node's own"):
        podns.open_netns("/proc/self/ns/net")
    with pytest.raises(Unavailable, match="no network namespace"):
        podns.open_netns(str(Path("/proc/self/ns/uts")))
