"""`down` leaves nothing, whatever happened before; `up` mends; labs do not know of each other."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from ambient.lab import cgroup, network
from ambient.lab.names import BPFFS, LABS
from ambient.lab.process import alive
from ambient.lab.teardown import down, remains
from tests.support.lab import SLEEP, LabUnderTest, namespace_yaml, pod_yaml, until

_PODS = namespace_yaml("a") + pod_yaml("a/x", SLEEP, node="n1") + pod_yaml("a/y", SLEEP, node="n2")


def _everything(lab: LabUnderTest) -> list[str]:
    """What of the lab exists, found without asking the code under test."""
    prefix = lab.names.prefix
    found = [f"netns {name}" for name in os.listdir("/run/netns") if name.startswith(f"{prefix}-")]
    mounted = cgroup.mount_point()
    assert mounted is not None
    if (mounted / prefix).exists():
        found.append("cgroup")
    for proc in Path("/proc").iterdir():
        if proc.name.isdigit():
            try:
                command, group = (proc / "cmdline").read_bytes(), (proc / "cgroup").read_text()
            except OSError:
                continue
            if not alive(int(proc.name)):
                continue  # dead, and only waits for the machine's init
            if f"/{prefix}/" in group or (proc.name != str(os.getpid()) and lab.name.encode() in command.split(b"\0")):
                found.append(f"process {command!r}")
    for folder in (LABS, BPFFS):
        if (folder / lab.name).exists():
            found.append(f"files {folder / lab.name}")
    return found


def _pids(lab: LabUnderTest) -> list[int]:
    mounted = cgroup.mount_point()
    assert mounted is not None
    return cgroup.pids(mounted / lab.names.cgroup())


def test_down_leaves_nothing(lab: LabUnderTest) -> None:
    lab.up(_PODS)
    with lab.start("a/x", "sleep", "infinity") as entered:
        try:
            assert len(_everything(lab)) > 6
            assert lab.must("down") == f"lab {lab.name} is down\n"
        finally:
            entered.kill()
    assert _everything(lab) == []


def test_down_of_what_is_not_there_is_fine(lab: LabUnderTest) -> None:
    assert lab.must("down") == f"lab {lab.name} was not there\n"


def _kill_everything(lab: LabUnderTest) -> None:
    for pid in _pids(lab):
        with suppress(ProcessLookupError):  # it went with another
            os.kill(pid, 9)


def _lose_files(lab: LabUnderTest) -> None:
    def gone() -> bool:  # its processes may be writing
        shutil.rmtree(lab.names.folder, ignore_errors=True)
        return not lab.names.folder.exists()

    until("the files are lost", gone)


def _lose_namespaces(lab: LabUnderTest) -> None:
    for netns in network.list_names():
        if lab.names.owns(netns):
            network.remove(netns)


def _break_files(lab: LabUnderTest) -> None:
    lab.names.settings.write_text("{")


def _leave_the_cgroup(lab: LabUnderTest) -> None:
    mounted = cgroup.mount_point()
    assert mounted is not None
    for pid in lab.status_of("a/x")["pids"]:
        (mounted / "cgroup.procs").write_text(str(pid))


@pytest.mark.parametrize("crash", [_kill_everything, _lose_files, _lose_namespaces, _break_files, _leave_the_cgroup])
def test_down_leaves_nothing_after(lab: LabUnderTest, crash: Callable[[LabUnderTest], None]) -> None:
    lab.up(_PODS)
    crash(lab)
    assert _everything(lab) != []
    lab.must("down")
    assert _everything(lab) == []


@pytest.mark.parametrize("after_s", [0.05, 0.15, 0.25, 0.35, 0.5])
def test_down_leaves_nothing_after_up_was_killed(lab: LabUnderTest, after_s: float, tmp_path: Path) -> None:
    manifest = tmp_path / "pods.yaml"
    manifest.write_text(_PODS)
    command = [sys.executable, "-m", "ambient", "lab", "up", "--no-mesh", "--name", lab.name, str(manifest)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            process.wait(after_s)
        except subprocess.TimeoutExpired:
            process.kill()
    lab.must("down")
    assert _everything(lab) == []


def test_the_check_sees_what_is_left(lab: LabUnderTest) -> None:
    lab.up(_PODS)
    lab.must("down")
    subprocess.run(["ip", "netns", "add", lab.names.node("n1")], check=True)
    assert remains(lab.names) == [f"namespace {lab.names.node('n1')}"] == [f"namespace {lab.names.prefix}-node.n1"]
    assert _everything(lab) != []
    assert down(lab.names)


def test_up_after_a_crash_that_lost_the_files_starts_anew(lab: LabUnderTest) -> None:
    lab.up(_PODS)
    _lose_files(lab)
    lab.up(_PODS)
    lab.wait_ready()
    assert len(lab.status()["pods"]) == 2


def test_up_twice_mends_what_died(lab: LabUnderTest) -> None:
    lab.up(_PODS)
    _kill_everything(lab)
    assert lab.must("up", "--no-mesh").endswith(f"lab {lab.name} is up already: 2 nodes\n")
    until("the pods run again", lambda: lab.exec("a/x", "true").returncode == 0 and len(_pids(lab)) >= 5)
    lab.wait_ready()


def test_up_with_other_settings_is_refused(lab: LabUnderTest) -> None:
    lab.up()
    assert lab.run("up", "--no-mesh", "--env", "A=b").returncode == 1


def test_two_labs_run_side_by_side(make_lab: Callable[[], LabUnderTest]) -> None:
    one, two = make_lab(), make_lab()
    one.up(_PODS)
    two.up(_PODS)
    assert one.ip("a/x") != two.ip("a/x")
    for lab, other in ((one, two), (two, one)):
        assert lab.exec("a/x", "ping", "-c1", "-W20", lab.ip("a/y", 6)).returncode == 0
        assert lab.exec("a/x", "ping", "-c1", "-W1", other.ip("a/y")).returncode != 0
    one.must("down")
    assert two.exec("a/x", "ping", "-c1", "-W20", two.ip("a/y")).returncode == 0


def test_every_verb_on_a_lab_that_is_not_there_says_so(lab: LabUnderTest) -> None:
    for verb in (["status"], ["exec", "a/x", "--", "true"], ["logs", "control"], ["label", "namespace", "a", "b=c"]):
        done = lab.run(*verb)
        assert (done.returncode, f"no lab '{lab.name}'" in done.stderr) == (1, True), done.stderr
    assert _everything(lab) == []
