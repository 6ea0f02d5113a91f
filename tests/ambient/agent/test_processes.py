from __future__ import annotations

import os
from pathlib import Path

import pytest

from ambient.agent.processes import PodProcesses, find_kubelet, held, pod_uid
from ambient.errors import Unavailable

UID = "a083249b-75a8-448b-bbdb-f81297229a3f"
SNAKE = UID.replace("-", "_")
OTHER = "11111111-2222-3333-4444-555555555555"
CONTAINER = "16e339c507d07a71d5475417feea9f6e45d761f18385a83dc8f77580868ac0a8"

LAYOUTS = {
    "v2, cgroupfs, best effort": f"0::/kubepods/besteffort/pod{UID}/{CONTAINER}",
    "v2, cgroupfs, guaranteed": f"0::/kubepods/pod{UID}/{CONTAINER}",
    "v1, cgroupfs": f"9:name=systemd:/kubepods/pod{UID}/{CONTAINER}\n1:cpu:/kubepods/pod{UID}/x\n0::/",
    "v1 without a line for v2": f"4:memory:/kubepods/besteffort/pod{UID}/{CONTAINER}",
    "v2, systemd, containerd": (
        f"0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{SNAKE}.slice/cri-containerd-{CONTAINER}.scope"
    ),
    "v2, systemd, guaranteed": f"0::/kubepods.slice/kubepods-pod{SNAKE}.slice/cri-containerd-{CONTAINER}.scope",
    "v2, systemd, CRI-O": (
        f"0::/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{SNAKE}.slice/crio-{CONTAINER}.scope/container"
    ),
    "v1, systemd, CRI-O": f"2:cpu,cpuacct:/kubepods.slice/kubepods-pod{SNAKE}.slice/crio-{CONTAINER}.scope\n0::/x",
    "containerd's slice with colons": (
        f"0::/system.slice/containerd.service/kubepods-besteffort-pod{SNAKE}.slice:cri-containerd:{CONTAINER}"
    ),
    "a node that is a container": (
        f"0::/docker/{CONTAINER}/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{SNAKE}.slice/cri-containerd-x.scope"
    ),
    "as another cgroup namespace sees it": f"0::/../../../kubepods/besteffort/pod{UID}/{CONTAINER}",
    "a group that the pod made below its own": f"0::/kubepods/pod{UID}/{CONTAINER}/kubepods/pod{OTHER}/x",
    "deeper than the container": f"0::/kubepods/pod{UID}/{CONTAINER}/init/worker",
}
NO_POD = {
    "kubelet": "0::/system.slice/kubelet.service",
    "the root": "0::/",
    "nothing": "",
    "a user's": "0::/user.slice/user-1000.slice/session-2.scope",
    "an almost uid": f"0::/kubepods/pod{UID[:-1]}/x",
    "a longer uid": f"0::/kubepods/pod{UID}0/x",
    "mixed signs": f"0::/kubepods/pod{UID.replace('-', '_', 1)}/x",
    "a word that ends in pod": f"0::/tripod{UID}/x",
    "hierarchies that do not agree": f"4:memory:/kubepods/pod{UID}/x\n0::/kubepods/pod{OTHER}/x",
    "CRI-O's monitor": f"0::/system.slice/crio-conmon-{CONTAINER}.scope",
    "letters outside": f"0::/kubepods/pod{UID.replace('a', 'g')}/x",
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_uid_is_in_the_control_group_of_every_runtime(layout: str) -> None:
    assert pod_uid(LAYOUTS[layout]) == UID


@pytest.mark.parametrize("layout", NO_POD)
def test_what_is_no_pods_is_nobodys(layout: str) -> None:
    assert pod_uid(NO_POD[layout]) is None


def test_a_static_pods_uid_is_a_hash() -> None:
    assert pod_uid("0::/kubepods/burstable/pod0123456789abcdef0123456789abcdef/x") == "0123456789abcdef0123456789abcdef"


class Machine:
    """A /proc of files: namespaces are files, told apart by their inodes."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.namespaces = root / "namespaces"
        self.namespaces.mkdir()
        self.process(1, "init", "0::/init.scope")

    def process(
        self,
        pid: int,
        name: str,
        cgroup: str,
        *,
        started: int = 0,
        net: str = "node",
        pidns: str = "node",
        uid: int = 0,
    ) -> None:
        directory = self.root / str(pid)
        (directory / "ns").mkdir(parents=True)
        (directory / "comm").write_text(f"{name}\n")
        (directory / "cgroup").write_text(f"{cgroup}\n")
        (directory / "status").write_text(f"Name:\t{name}\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n")
        (directory / "stat").write_text(f"{pid} (a ) name) S {' '.join(['0'] * 18)} {started or pid} 0 0\n")
        for kind, value in (("net", net), ("pid", pidns)):
            path = self.namespaces / f"{kind}-{value}"
            path.write_text(value)
            (directory / "ns" / kind).hardlink_to(path)

    def end(self, pid: int) -> None:
        directory = self.root / str(pid)
        directory.rename(self.root / f"gone-{pid}")

    def opened(self, processes: PodProcesses, uid: str = UID) -> str:
        fd = processes.open_netns(uid)
        with os.fdopen(fd) as file:
            return file.read()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


def test_the_sandbox_is_the_oldest_process_whatever_its_number(machine: Machine) -> None:
    machine.process(700, "pause", f"0::/kubepods/pod{UID}/a", started=10, net="pod")
    machine.process(600, "app", f"0::/kubepods/pod{UID}/b", started=20, net="one-of-its-own")
    assert machine.opened(PodProcesses(machine.root)) == "pod"


def test_a_process_of_the_pod_in_the_nodes_namespace_is_passed_over(machine: Machine) -> None:
    machine.process(500, "helper", f"0::/kubepods/pod{UID}/a", started=1, net="node")
    machine.process(501, "pause", f"0::/kubepods/pod{UID}/a", started=2, net="pod")
    assert machine.opened(PodProcesses(machine.root)) == "pod"


def test_without_a_process_there_is_no_namespace(machine: Machine) -> None:
    machine.process(500, "pause", f"0::/kubepods/pod{OTHER}/a", net="other")
    with pytest.raises(Unavailable, match="no process of the pod"):
        PodProcesses(machine.root).open_netns(UID)


def test_a_number_that_another_pod_has_now_does_not_answer_for_the_first(machine: Machine) -> None:
    machine.process(500, "pause", f"0::/kubepods/pod{UID}/a", net="pod")
    processes = PodProcesses(machine.root)
    assert machine.opened(processes) == "pod"
    machine.end(500)
    machine.process(500, "pause", f"0::/kubepods/pod{OTHER}/a", net="other")
    with pytest.raises(Unavailable):
        processes.open_netns(UID)


def test_a_held_process_answers_for_itself_after_its_number_was_given_again(machine: Machine) -> None:
    """Sabotage of the check above: by its number the other one would answer."""
    machine.process(500, "pause", f"0::/kubepods/pod{UID}/a", net="pod")
    with held(500, machine.root) as process:
        machine.end(500)
        machine.process(500, "pause", f"0::/kubepods/pod{OTHER}/a", net="other")
        assert process.pod_uid() == UID
        assert pod_uid((machine.root / "500/cgroup").read_text()) == OTHER


def test_a_new_sandbox_is_found_after_the_old_one_went(machine: Machine) -> None:
    machine.process(500, "pause", f"0::/kubepods/pod{UID}/a", net="first")
    processes = PodProcesses(machine.root)
    assert machine.opened(processes) == "first"
    machine.end(500)
    machine.process(501, "pause", f"0::/kubepods/pod{UID}/b", net="second")
    assert machine.opened(processes) == "second"


@pytest.mark.parametrize("name", ["kubelet", "k3s-server", "kubelite"])
def test_the_kubelet_is_known_by_name(machine: Machine, name: str) -> None:
    machine.process(99, name, "0::/system.slice/kubelet.service")
    assert find_kubelet(machine.root) == 99


FALSE_KUBELETS = {
    "in a pod": {"cgroup": f"0::/kubepods/pod{UID}/a"},
    "in a network namespace of its own": {"net": "pod"},
    "in a process namespace of its own": {"pidns": "pod"},
    "of another user": {"uid": 1000},
}


@pytest.mark.parametrize("why", FALSE_KUBELETS)
def test_a_process_that_only_calls_itself_kubelet_is_none(machine: Machine, why: str) -> None:
    cgroup = str(FALSE_KUBELETS[why].get("cgroup", "0::/x"))
    more = {name: value for name, value in FALSE_KUBELETS[why].items() if name != "cgroup"}
    machine.process(99, "kubelet", cgroup, **more)  # type: ignore[arg-type]
    with pytest.raises(Unavailable, match="no process of the node"):
        find_kubelet(machine.root)
