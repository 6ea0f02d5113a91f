"""A node without bpffs, and an agent in a container on it: mount namespaces as a container runtime makes them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ENSURE = "import ambient.datapath.bpffs as b; from pathlib import Path; b.ensure_bpffs(Path('/sys/fs/bpf/a'))"
KIND = "stat -f -c %T /sys/fs/bpf"
# A node of its own: the first process of a new process namespace, a fresh /sys on which nothing is mounted.
NODE = "mount --make-rshared / && mount -t proc proc /proc && mount -t sysfs sysfs /sys && {}"


def on_a_node(script: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["unshare", "--mount", "--pid", "--net", "--fork", "sh", "-c", NODE.format(script), sys.executable],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
        timeout=200,
    )


def test_out_of_a_container_it_is_mounted_on_the_node_and_outlives_the_container() -> None:
    done = on_a_node(f'{KIND} && unshare --mount --propagation slave "$0" -c "{ENSURE}" && {KIND}')
    assert (done.returncode, done.stdout.split()) == (0, ["sysfs", "bpf_fs"]), done.stderr


def test_on_the_node_itself_it_is_mounted_there() -> None:
    done = on_a_node(f'"$0" -c "{ENSURE}" && {KIND}')
    assert (done.returncode, done.stdout.strip()) == (0, "bpf_fs"), done.stderr


def test_a_mount_that_does_not_come_through_is_an_error_and_not_one_of_the_containers_own() -> None:
    """Sabotage: without propagation the agent would pin where nothing outlives it."""
    done = on_a_node(f'unshare --mount --propagation private "$0" -c "{ENSURE}"')
    assert done.returncode == 1
    assert "mountPropagation: HostToContainer" in done.stderr


@pytest.mark.parametrize("capability", ["sys_chroot", "sys_admin"])
def test_without_the_right_it_says_so(capability: str) -> None:
    drop = f"setpriv --bounding-set=-{capability} --inh-caps=-{capability}"
    done = on_a_node(f'unshare --mount --propagation slave {drop} "$0" -c "{ENSURE}"')
    assert done.returncode == 1
    assert "cannot mount bpffs on the node" in done.stderr
