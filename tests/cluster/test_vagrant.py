"""The machines of vagrant/ without a hypervisor: the provisioning scripts in a clean Debian root, the Vagrantfile as
Vagrant itself reads it.

What a root without a kernel, an init and Kubernetes' package server of its own cannot show is left out: booting another
kernel, starting services, `kubeadm init` and `join`. Stand-ins take the place of Kubernetes' three packages.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

VAGRANT: Final = Path(__file__).parents[2] / "vagrant"
MIRROR: Final = "http://deb.debian.org/debian"
PROVISION: Final = "/ambient/vagrant/provision"
ENVIRONMENT: Final = (
    *("PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "OFFLINE=1", "KUBERNETES=1.36.3", "MACHINES=3"),
    *("CONTROL=192.168.56.10", "ADDRESS=192.168.56.11", "TOKEN=abcdef.0123456789abcdef"),
    "REPOSITORY=deb [trusted=yes] file:/repository ./",
)
_ENTER: Final = 'mount --make-rprivate /; mount -t proc proc "$1/proc"; mount --bind /dev "$1/dev"; exec chroot "$@"'
_UNIT: Final = "[Service]\nExecStart=/usr/bin/kubelet\n[Install]\nWantedBy=multi-user.target\n"


class Root:
    """A clean Debian 12. Nothing that runs in it starts a service."""

    def __init__(self, path: Path) -> None:
        self.path = path
        include = "ca-certificates,systemd,sudo,iproute2"
        command = ["debootstrap", "--variant=minbase", f"--include={include}", "bookworm", str(path), MIRROR]
        subprocess.run(command, check=True, capture_output=True, timeout=500)
        shutil.copy("/etc/resolv.conf", path / "etc" / "resolv.conf")
        self.write("usr/sbin/policy-rc.d", "#!/bin/sh\nexit 101\n", 0o755)
        shutil.copytree(VAGRANT, path / "ambient" / "vagrant")

    def write(self, name: str, text: str, mode: int = 0o644) -> None:
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        target.chmod(mode)

    def read(self, name: str) -> str:
        return (self.path / name).read_text()

    def run(self, *argv: str, more: tuple[str, ...] = (), network: bool = True) -> str:
        """What it prints; AssertionError with everything when it fails. Without `network` it has one of its own."""
        spaces = ["--mount", *([] if network else ["--net"])]
        command = ["unshare", *spaces, "sh", "-ec", _ENTER, "sh", str(self.path), "/usr/bin/env", "-i"]
        done = subprocess.run(
            [*command, *ENVIRONMENT, *more, *argv], capture_output=True, text=True, check=False, timeout=500
        )
        assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
        return done.stdout


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Root]:
    made = Root(tmp_path_factory.mktemp("vagrant") / "root")
    repository = made.path / "repository"
    for name in ("kubelet", "kubeadm", "kubectl"):
        about = f"Package: {name}\nVersion: 1.36.3-1.1\nArchitecture: all\nMaintainer: x <x@x>\nDescription: none\n"
        made.write(f"repository/{name}/DEBIAN/control", about)
        made.write(f"repository/{name}/usr/bin/{name}", "#!/bin/sh\ncat /nodes\n", 0o755)
        if name == "kubelet":
            made.write(f"repository/{name}/lib/systemd/system/kubelet.service", _UNIT)
        package = str(repository / f"{name}.deb")
        subprocess.run(["dpkg-deb", "--build", str(repository / name), package], check=True, capture_output=True)
    scanned = subprocess.run(
        ["dpkg-scanpackages", ".", "/dev/null"], cwd=repository, check=True, capture_output=True, text=True
    )
    made.write("repository/Packages", scanned.stdout)
    yield made
    shutil.rmtree(made.path)


def test_every_machine_gets_its_runtime_its_version_of_kubernetes_and_the_mirror(root: Root) -> None:
    for _ in range(2):  # as `vagrant provision` does again
        root.run("sh", f"{PROVISION}/base.sh")
    assert "SystemdCgroup = true" in root.read("etc/containerd/config.toml")
    assert 'config_path = "/etc/containerd/certs.d"' in root.read("etc/containerd/config.toml")
    assert root.read("etc/containerd/certs.d/192.168.56.10:5000/hosts.toml") == 'server = "http://192.168.56.10:5000"\n'
    assert root.read("etc/default/kubelet") == "KUBELET_EXTRA_ARGS=--node-ip=192.168.56.11\n"
    assert root.run("apt-mark", "showhold").split() == ["kubeadm", "kubectl", "kubelet"]
    assert {"bridge", "host-local", "portmap"} <= {path.name for path in (root.path / "opt/cni/bin").iterdir()}


def test_units_are_as_systemd_wants_them_and_the_token_is_roots_only(root: Root) -> None:
    root.run("sh", f"{PROVISION}/node.sh")
    unit = root.path / "etc/systemd/system/kubeadm-join.service"
    assert unit.stat().st_mode & 0o777 == 0o600
    assert "join 192.168.56.10:6443 --token abcdef.0123456789abcdef" in unit.read_text()
    root.run("systemd-analyze", "verify", f"/{unit.relative_to(root.path)}", "/etc/systemd/system/pod-network.service")


def test_pods_get_a_bridge_here_and_routes_to_the_other_machines(root: Root) -> None:
    root.write(
        "nodes",
        "n1 10.244.1.0/24 192.168.56.11\nn2 10.244.2.0/24 192.168.56.12\ncontrol 10.244.0.0/24 192.168.56.10\nnew  \n",
    )
    root.write("etc/kubernetes/kubelet.conf", "credentials")
    cable = "ip link add eth1 type bridge; ip addr add 192.168.56.11/24 dev eth1; ip link set eth1 up; "
    routes = root.run("sh", "-ec", f"{cable} ONCE=1 ME=n1 /usr/local/sbin/pod-network; ip route", network=False)
    assert "10.244.2.0/24 via 192.168.56.12" in routes
    assert "10.244.0.0/24 via 192.168.56.10" in routes
    assert "10.244.1.0/24" not in routes
    written = json.loads(root.read("etc/cni/net.d/10-bridge.conflist"))
    assert written["plugins"][0]["ipam"]["ranges"] == [[{"subnet": "10.244.1.0/24"}]]


def test_the_control_machines_registry_is_debians(root: Root) -> None:
    root.run("sh", f"{PROVISION}/control.sh")
    assert '"192.168.56.11:5000"' in root.read("etc/docker/registry/config.yml")
    root.run("skopeo", "--version")


def test_there_is_a_kernel_that_is_new_enough(root: Root) -> None:
    root.write("simulate", 'APT::Get::Simulate "true";\n')
    said = root.run("sh", f"{PROVISION}/kernel.sh", more=("APT_CONFIG=/simulate",))
    found = [line.split("(")[1] for line in said.splitlines() if line.startswith("Inst linux-image-")]
    versions = [tuple(map(int, one.split(".")[:2])) for one in found]
    assert versions, said
    assert min(versions) >= (6, 6)


def test_vagrant_takes_the_vagrantfile(root: Root) -> None:
    root.run("apt-get", "-q", "-y", "install", "--no-install-recommends", "vagrant")
    assert "validated successfully" in root.run("sh", "-ec", "cd /ambient/vagrant; vagrant validate --ignore-provider")
    token = (root.path / "ambient/vagrant/.vagrant-token").read_text().strip()
    assert [len(part) for part in token.split(".")] == [6, 16]
