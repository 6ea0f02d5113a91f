"""Whose marks count: entered while a process is left, a former one's when none is, never guessed."""

from __future__ import annotations

from pathlib import Path

import pytest

from ambient.agent.owners import MOST_FORMER, Owners, cgroup_of
from ambient.datapath.layout import Role


class Table(dict[int, Role]):
    """The owners map; `put` and `delete` as the real one has them."""

    def put(self, cgroup_id: int, role: Role, /) -> None:
        self[cgroup_id] = role

    def delete(self, cgroup_id: int, /) -> object:
        return self.pop(cgroup_id, None)

    def items(self) -> dict[int, Role]:  # type: ignore[override]
        return dict(self)


def cgroup(path: Path, pids: str = "12\n") -> int:
    path.mkdir(parents=True, exist_ok=True)
    (path / "cgroup.procs").write_text(pids)
    return path.stat().st_ino


def process(proc: Path, pid: int, text: str) -> None:
    (proc / str(pid)).mkdir(parents=True, exist_ok=True)
    (proc / str(pid) / "cgroup").write_text(text)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("0::/\n", ""),
        ("3:cpu:/elsewhere\n0::/a/b\n", "a/b"),
        ("0::/../outside\n", None),
        ("3:cpu:/only v1\n", None),
        ("", None),
    ],
)
def test_the_cgroup_of_a_process(tmp_path: Path, text: str, found: str | None) -> None:
    process(tmp_path / "proc", 12, text)
    expected = None if found is None else tmp_path / "mount" / found
    assert cgroup_of(12, tmp_path / "mount", tmp_path / "proc") == expected


def test_a_process_that_is_gone_has_no_cgroup(tmp_path: Path) -> None:
    assert cgroup_of(12, tmp_path, tmp_path / "proc") is None


def test_a_ztunnel_counts_while_a_process_is_left_in_its_cgroup(tmp_path: Path) -> None:
    process(tmp_path / "proc", 12, "0::/zt\n")
    number = cgroup(tmp_path / "mount" / "zt")
    table = Table()
    owners = Owners(table, tmp_path / "mount", tmp_path / "proc")
    owners.admit_ztunnel(12)
    owners.prune()
    assert table == {number: Role.ZTUNNEL}
    cgroup(tmp_path / "mount" / "zt", "")
    owners.prune()
    assert table == {number: Role.FORMER_ZTUNNEL}


def test_a_ztunnel_whose_cgroup_was_removed_counts_no_more(tmp_path: Path) -> None:
    process(tmp_path / "proc", 12, "0::/zt\n")
    number = cgroup(tmp_path / "mount" / "zt")
    table = Table()
    owners = Owners(table, tmp_path / "mount", tmp_path / "proc")
    owners.admit_ztunnel(12)
    (tmp_path / "mount" / "zt" / "cgroup.procs").unlink()
    (tmp_path / "mount" / "zt").rmdir()
    owners.prune()
    assert table == {number: Role.FORMER_ZTUNNEL}


def test_of_very_many_former_ones_the_oldest_are_forgotten(tmp_path: Path) -> None:
    table = Table({number: Role.ZTUNNEL for number in range(1, MOST_FORMER + 3)})
    Owners(table, tmp_path / "mount", tmp_path / "proc").adopt()
    assert table == {number: Role.FORMER_ZTUNNEL for number in range(3, MOST_FORMER + 3)}


def test_a_ztunnel_without_a_cgroup_is_not_entered(tmp_path: Path) -> None:
    table = Table()
    Owners(table, None, tmp_path / "proc").admit_ztunnel(12)
    Owners(table, tmp_path / "mount", tmp_path / "proc").admit_ztunnel(12)
    assert table == {}


def test_the_next_agent_takes_over_the_living_and_drops_the_dead(tmp_path: Path) -> None:
    alive = cgroup(tmp_path / "mount" / "deep" / "zt")
    kubelet = cgroup(tmp_path / "mount" / "kubelet")
    table = Table({alive: Role.ZTUNNEL, 999_999_999: Role.ZTUNNEL, kubelet: Role.KUBELET})
    owners = Owners(table, tmp_path / "mount", tmp_path / "proc")
    owners.adopt()
    dead = {999_999_999: Role.FORMER_ZTUNNEL}
    assert table == {alive: Role.ZTUNNEL, kubelet: Role.KUBELET, **dead}
    cgroup(tmp_path / "mount" / "deep" / "zt", "")
    owners.prune()
    assert table == {alive: Role.FORMER_ZTUNNEL, kubelet: Role.KUBELET, **dead}


def test_there_is_one_kubelet(tmp_path: Path) -> None:
    table = Table({5: Role.KUBELET, 6: Role.ZTUNNEL})
    number = cgroup(tmp_path / "kubelet")
    Owners(table, tmp_path, tmp_path / "proc").admit_kubelet(tmp_path / "kubelet")
    assert table == {6: Role.ZTUNNEL, number: Role.KUBELET}
