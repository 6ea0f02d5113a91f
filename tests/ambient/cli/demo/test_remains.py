"""What a lab left is found: processes by arguments or control group; another lab's are not taken for it."""

from __future__ import annotations

from pathlib import Path

from ambient.cli.demo.remains import processes, remains
from ambient.lab.names import Names


def _process(proc: Path, pid: int, arguments: str, groups: str = "0::/\n", state: str = "S") -> None:
    (proc / str(pid)).mkdir()
    (proc / str(pid) / "cmdline").write_bytes(arguments.replace(" ", "\0").encode())
    (proc / str(pid) / "cgroup").write_text(groups)
    (proc / str(pid) / "stat").write_text(f"{pid} (a) b) {state} 1 2 3")


def test_processes_of_a_lab_are_found_by_argument_and_by_control_group(tmp_path: Path) -> None:
    names = Names("demo")
    _process(tmp_path, 10, f"python3 -m ambient.agent {names.folder}/n1")
    _process(tmp_path, 11, "sleep infinity", "1:cpu:/\n0::/amb-demo/nodes/n1/pods/x\n")
    _process(tmp_path, 12, "nsenter --net=/run/netns/amb-demo-node.n1 tcpdump")
    _process(tmp_path, 13, "sleep infinity", "0::/amb-demo2/nodes/n1\n")
    _process(tmp_path, 14, "vi notes about amb-demo2-node.n1")
    _process(tmp_path, 15, "", "0::/amb-demo/nodes/n1\n", state="Z")
    (tmp_path / "self").mkdir()
    assert [line.split()[0] for line in sorted(processes(names, tmp_path))] == ["10", "11", "12"]


def test_a_lab_that_never_was_leaves_nothing() -> None:
    assert remains("no-such-lab-anywhere") == {}
