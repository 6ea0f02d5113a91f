"""Whose sockets count, as control groups that a rule can name."""

from __future__ import annotations

from pathlib import Path

from ambient.agent.owners import Owners
from ambient.agent.rule_owners import RuleOwners
from ambient.datapath.layout import Role


def group(mount: Path, name: str) -> tuple[int, Path]:
    path = mount / name
    path.mkdir(parents=True)
    return path.stat().st_ino, path


def test_groups_are_named_by_their_depth_and_from_where_nft_looks(tmp_path: Path) -> None:
    owners = RuleOwners(tmp_path / "owners.json", tmp_path / "cgroup")
    ztunnel, path = group(tmp_path / "cgroup", "pods/ztunnel")
    kubelet, _ = group(tmp_path / "cgroup", "kubelet")
    owners.put(ztunnel, Role.ZTUNNEL)
    owners.put(kubelet, Role.KUBELET)
    (found,) = owners.ztunnels() or ()
    assert found.level == 2
    assert Path("/sys/fs/cgroup", found.path).resolve() == path.resolve()
    assert [one.level for one in owners.kubelets() or ()] == [1]


def test_the_next_agent_knows_them_and_every_change_is_told(tmp_path: Path) -> None:
    changes: list[int] = []
    owners = RuleOwners(tmp_path / "state/owners.json", tmp_path / "cgroup")
    owners.tell(lambda: changes.append(1))
    ztunnel, _ = group(tmp_path / "cgroup", "ztunnel")
    owners.put(ztunnel, Role.ZTUNNEL)
    owners.put(ztunnel, Role.ZTUNNEL)
    assert len(changes) == 1, "the same again changes nothing"
    again = RuleOwners(tmp_path / "state/owners.json", tmp_path / "cgroup")
    assert again.items() == {ztunnel: Role.ZTUNNEL}
    assert len(again.ztunnels() or ()) == 1
    owners.delete(ztunnel)
    assert owners.ztunnels() == ()
    assert len(changes) == 2


def test_a_group_that_is_gone_or_a_former_ztunnels_is_not_named(tmp_path: Path) -> None:
    owners = RuleOwners(tmp_path / "owners.json", tmp_path / "cgroup")
    one, path = group(tmp_path / "cgroup", "one")
    two, _ = group(tmp_path / "cgroup", "two")
    owners.put(one, Role.ZTUNNEL)
    owners.put(two, Role.ZTUNNEL)
    assert len(owners.ztunnels() or ()) == 2
    path.rmdir()
    owners.put(two, Role.FORMER_ZTUNNEL)
    assert owners.ztunnels() == ()


def test_the_root_group_is_everybodys_and_so_is_a_node_without_cgroup_v2(tmp_path: Path) -> None:
    mount = tmp_path / "cgroup"
    mount.mkdir()
    owners = RuleOwners(tmp_path / "owners.json", mount)
    owners.put(mount.stat().st_ino, Role.ZTUNNEL)
    assert owners.ztunnels() is None
    owners.put(mount.stat().st_ino, Role.KUBELET)
    assert owners.kubelets() == (), "it cannot be told from pods: nobody's connections are probes"
    without = RuleOwners(tmp_path / "others.json", None)
    assert without.ztunnels() is None
    assert without.kubelets() is None


def test_a_file_that_is_not_ours_is_nobody(tmp_path: Path) -> None:
    (tmp_path / "owners.json").write_text("[1]")
    assert RuleOwners(tmp_path / "owners.json", tmp_path).items() == {}


def test_what_an_agent_before_us_entered_is_taken_over(tmp_path: Path) -> None:
    ztunnel, _ = group(tmp_path / "cgroup", "ztunnel")
    table = RuleOwners(tmp_path / "owners.json", tmp_path / "cgroup")
    table.put(ztunnel, Role.ZTUNNEL)
    table.put(999_999_999, Role.ZTUNNEL)
    Owners(table, tmp_path / "cgroup").adopt()
    assert table.items() == {ztunnel: Role.ZTUNNEL, 999_999_999: Role.FORMER_ZTUNNEL}
