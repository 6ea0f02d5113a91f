"""Cgroups are known by the number that the kernel compares."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ambient.datapath import cgroups
from ambient.errors import KernelError, Unavailable


def test_a_process_is_in_the_cgroup_that_the_kernel_says() -> None:
    root = cgroups.mount_point()
    if root is None:
        assert cgroups.cgroup_id(os.getpid()) is None
        return
    path = next(line[3:] for line in Path("/proc/self/cgroup").read_text().splitlines() if line.startswith("0::"))
    assert cgroups.cgroup_id(os.getpid()) == cgroups.cgroup_id_of(root / path.lstrip("/"))


def test_a_directory_that_is_no_cgroup_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(KernelError, match="not a cgroup v2"):
        cgroups.cgroup_id_of(tmp_path)


def test_a_process_that_is_gone_is_said_so() -> None:
    if cgroups.mount_point() is None:
        return
    child = os.posix_spawn("/bin/true", ["true"], {})
    os.waitpid(child, 0)
    with pytest.raises(Unavailable, match=f"pid {child}"):
        cgroups.cgroup_id(child)
