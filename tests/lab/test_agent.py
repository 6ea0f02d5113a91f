"""The agent as a process on a node of namespaces, with real programs and a stand-in for ztunnel."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ambient.datapath import bpfsys, programs
from ambient.datapath.layout import FailMode, Flag, Role
from ambient.datapath.maps import Maps
from ambient.model.address import LOOP_MARK
from tests.support.agent_lab import AgentLab, agent_lab, eventually, namespace, pod, settled_world
from tests.support.capture_world import World, run
from tests.support.stand_in import App

AMBIENT = namespace("shop", "ambient")
PLAIN = namespace("shop")
POD = pod("pod", ["10.213.1.2", "fd00:213:1::2"])
OTHER = pod("other", ["10.213.2.2", "fd00:213:2::2"])


@pytest.fixture(scope="module")
def the_world() -> Iterator[World]:
    with settled_world(f"amb-ag-{os.getpid()}") as made:
        yield made


@pytest.fixture
def lab(the_world: World) -> Iterator[AgentLab]:
    with agent_lab(the_world) as made:
        yield made


@pytest.fixture
def mesh(lab: AgentLab) -> AgentLab:
    """Agent and ztunnel run, both pods are in the mesh."""
    lab.agent()
    lab.ztunnel()
    lab.settled(lab.put(AMBIENT, POD, OTHER))
    return lab


def speak(connection: socket.socket) -> bytes:
    connection.sendall(b"ping")
    return connection.recv(100)


def rules(lab: AgentLab, name: str) -> str:
    netns = f"{lab.world.prefix}-{name}"
    return run("nsenter", f"--net=/run/netns/{netns}", "ip", "rule") + run(
        "nsenter", f"--net=/run/netns/{netns}", "ip", "-6", "rule"
    )


def untouched(lab: AgentLab, name: str) -> bool:
    """Nothing of ours is left of a pod, neither in the kernel nor in files."""
    with Maps.open(lab.bpffs) as tables:
        rows = tables.pods.items()
    place = lab.world.places[name]
    return (
        hex(LOOP_MARK) not in rules(lab, name)
        and not any(place.ip(version) in rows for version in (4, 6))
        and not list((lab.root / "state" / "pods").glob("*.json"))
        and programs.attached(lab.bpffs) == {}
    )


def counters(lab: AgentLab) -> dict[str, int]:
    with Maps.open(lab.bpffs) as tables:
        return {counter.name: value for counter, value in tables.counters.read().items()}


@pytest.mark.parametrize("version", [4, 6])
def test_joining_and_leaving_touches_no_open_connection(lab: AgentLab, version: int) -> None:
    lab.agent()
    stand_in = lab.ztunnel()
    lab.settled(lab.put(PLAIN, POD, OTHER))
    app = App(lab.world, lab.world.other, version)
    old = lab.connect(lab.world.pod, lab.world.other, app.address.port, version=version)
    old.recv(100)
    lab.settled(lab.put(AMBIENT))
    assert lab.shown("pod") == lab.shown("other") == "enabled"
    assert speak(old) == b"ping"
    new = lab.connect(lab.world.pod, lab.world.other, app.address.port, version=version)
    assert new.recv(100).split()[0].decode() == str(lab.world.pod.ip(version))
    assert counters(lab)["REDIRECTED_OUT"] == 1
    assert counters(lab)["REDIRECTED_IN"] == 1
    shown = lab.pods()["shop/pod"]["older_connections"]
    assert [one["local"] for one in shown] == [":".join(_text(old.getsockname()))]
    lab.settled(lab.put(PLAIN))
    assert lab.shown("pod") is None
    assert speak(old) == speak(new) == b"ping"
    newest = lab.connect(lab.world.pod, lab.world.other, app.address.port, version=version)
    assert newest.recv(100)
    assert counters(lab)["REDIRECTED_OUT"] == 1
    assert not untouched(lab, "pod"), "released before its proxied connection ended"
    new.close()
    eventually(lambda: untouched(lab, "pod") and untouched(lab, "other"), "nothing left")
    assert speak(old) == b"ping"
    for connection in (old, newest):
        connection.close()
    app.close()
    assert stand_in.text().count("down") == 2


def _text(address: tuple[object, ...]) -> tuple[str, str]:
    host = str(address[0])
    return (f"[{host}]" if ":" in host else host), str(address[1])


def test_a_pod_is_not_captured_before_ztunnel_serves_it(lab: AgentLab) -> None:
    lab.agent()
    lab.put(AMBIENT, POD, OTHER)
    eventually(lambda: lab.shown("pod") == "pending", "pending")
    app = App(lab.world, lab.world.other, 4)
    direct = lab.connect(lab.world.pod, lab.world.other, app.address.port)
    assert direct.recv(100)
    assert counters(lab)["REDIRECTED_OUT"] == 0
    lab.ztunnel("--refuse", "3")
    lab.enrolled("pod")
    lab.enrolled("other")
    assert speak(direct) == b"ping"
    assert len(lab.pods()["shop/pod"]["older_connections"]) == 1
    direct.close()
    app.close()


def test_without_ztunnel_a_captured_pod_is_closed_and_one_that_asked_for_it_is_not_while_policies_are_unknown(
    lab: AgentLab,
) -> None:
    agent = lab.agent()
    stand_in = lab.ztunnel()
    willing = pod("pod", ["10.213.1.2", "fd00:213:1::2"], annotations={"ambient.mesh/fail-mode": "open"})
    lab.settled(lab.put(AMBIENT, willing))
    app = App(lab.world, lab.world.outside, 4)
    stand_in.end(signal.SIGKILL)
    with pytest.raises(OSError, match="timed out"):
        lab.connect(lab.world.pod, lab.world.outside, app.address.port, patience_s=0.4)
    assert counters(lab)["REFUSED_NO_LISTENER_OUT"] > 0
    # Sabotage: with the row opened by hand the same connection gets out, so it was the row that refused it. Meanwhile
    # the agent sleeps, whose sweep would close it.
    agent.popen.send_signal(signal.SIGSTOP)
    with Maps.open(lab.bpffs) as tables:
        ip = lab.world.pod.ip(4)
        row = tables.pods.get(ip)
        assert row is not None
        assert row.fail_out is FailMode.CLOSED
        tables.pods.put(ip, type(row)(row.flags, FailMode.OPEN, FailMode.OPEN, row.epoch, row.host_ifindex))
    lab.connect(lab.world.pod, lab.world.outside, app.address.port).close()
    agent.popen.send_signal(signal.SIGCONT)

    def closed_again() -> bool:
        with Maps.open(lab.bpffs) as tables:
            found = tables.pods.get(ip)
        return found is not None and found.fail_out is FailMode.CLOSED

    eventually(closed_again, "the sweep closes it again")
    told = 'ambient_agent_repairs_total{what="row"} 1'
    eventually(lambda: told in lab.http("GET", "/metrics")[1], "it is counted")
    app.close()


def test_a_dead_agent_changes_nothing_and_the_next_one_takes_over(mesh: AgentLab) -> None:
    app = App(mesh.world, mesh.world.other, 4)
    before = mesh.connect(mesh.world.pod, mesh.world.other, app.address.port)
    assert before.recv(100)
    mesh.processes[0].end(signal.SIGKILL)
    during = mesh.connect(mesh.world.pod, mesh.world.other, app.address.port)
    assert during.recv(100)
    stand_in = mesh.processes[1]
    agent = mesh.agent()
    agent.wait_for("ztunnel connected")
    agent.wait_for("in the mesh (as before)", times=2)
    stand_in.wait_for("snapshot", times=2)
    assert "down" not in stand_in.text()
    assert speak(before) == speak(during) == b"ping"
    for connection in (before, during):
        connection.close()
    app.close()


def test_a_pod_that_went_while_the_agent_was_dead_is_collected(mesh: AgentLab) -> None:
    mesh.processes[0].end(signal.SIGKILL)
    mesh.delete("Pod", "pod")
    mesh.agent()
    eventually(lambda: "shop/other" in mesh.pods(), "the agent is back")
    eventually(lambda: len(programs.attached(mesh.bpffs)) == 1, "links of the deleted pod are gone")
    left = {mesh.world.other.ip(4), mesh.world.other.ip(6)}
    with Maps.open(mesh.bpffs) as tables:  # rows go after the links
        eventually(lambda: set(tables.pods.items()) == left, "rows of the deleted pod are gone")
    eventually(lambda: hex(LOOP_MARK) not in rules(mesh, "pod"), "its rules are gone")
    mesh.processes[1].wait_for("down")


def test_an_address_that_goes_to_another_pod_at_once_is_the_new_pods(mesh: AgentLab) -> None:
    uid = mesh.uid("pod")
    mesh.delete("Pod", "pod")
    mesh.settled(mesh.put(POD))
    assert mesh.uid("pod") != uid
    eventually(lambda: set(programs.attached(mesh.bpffs)) == {mesh.uid("pod"), mesh.uid("other")}, "links")
    with Maps.open(mesh.bpffs) as tables:
        row = tables.pods.get(mesh.world.pod.ip(4))
    assert row is not None
    assert Flag.CAPTURE_OUT in row.flags
    assert mesh.shown("pod") == "enabled"


def test_links_that_somebody_removes_come_back_with_an_alarm(mesh: AgentLab) -> None:
    def counted(what: str, times: int) -> None:
        told = f'ambient_agent_repairs_total{{what="{what}"}} {times}'
        eventually(lambda: told in mesh.http("GET", "/metrics")[1], f"the repair is counted: {what}")

    def found(look: Callable[[Path], int]) -> int | None:
        # While it is put back the pin is away for a moment.
        try:
            return look(pin)
        except FileNotFoundError:
            return None

    pin = mesh.bpffs / "pods" / mesh.uid("pod") / "pod_egress"
    pin.unlink()
    eventually(pin.exists, "the link is pinned again")
    mesh.processes[0].wait_for("somebody unpinned 1 of our")
    counted("pin", 1)
    bpfsys.detach_link(pin)
    mesh.processes[0].wait_for("somebody detached or replaced a program of the mesh")
    eventually(lambda: found(bpfsys.link_target), "it is attached again")
    counted("link", 1)
    ours = bpfsys.link_program(pin)
    foreign = next((mesh.bpffs / "programs").iterdir()) / "host_egress"
    with bpfsys.opened(pin) as link, bpfsys.opened(foreign) as program:
        bpfsys.update_link(link, program, "a stranger")
    eventually(lambda: found(bpfsys.link_program) == ours, "it runs our program again")
    counted("link", 2)


def test_what_nobody_owns_is_taken_away(mesh: AgentLab) -> None:
    orphan = mesh.bpffs / "pods" / "uid-of-nobody"
    programs.attach_pod(mesh.bpffs, mesh.world.outside.netns, "uid-of-nobody")
    eventually(lambda: not orphan.exists(), "orphaned links are gone")


def test_the_marks_of_ztunnel_count_while_it_lives(mesh: AgentLab) -> None:
    def roles() -> dict[int, Role]:
        with Maps.open(mesh.bpffs) as tables:
            return tables.owners.items()

    kubelet, ztunnel = mesh.world.cgroup_id("kubelet"), mesh.world.cgroup_id("ztunnel")
    assert roles() == {kubelet: Role.KUBELET, ztunnel: Role.ZTUNNEL}
    mesh.processes[1].end(signal.SIGKILL)
    gone = {kubelet: Role.KUBELET, ztunnel: Role.FORMER_ZTUNNEL}
    eventually(lambda: roles() == gone, "the dead ztunnel's mark counts no more")


def test_a_probe_of_the_node_reaches_the_pod_and_nothing_else_of_the_node_does_unproxied(mesh: AgentLab) -> None:
    app = App(mesh.world, mesh.world.pod, 4)
    for owner, counter in (("kubelet", "PROBE"), ("app", "REDIRECTED_IN")):
        before = counters(mesh)[counter]
        with mesh.world.socket(mesh.world.node, socket.AF_INET, owner=owner) as probe:
            probe.settimeout(60)
            probe.connect((str(app.address.ip), app.address.port))
            assert probe.recv(100)
        assert counters(mesh)[counter] > before, owner
    app.close()


def test_all_older_connections_of_a_pod_can_be_ended(lab: AgentLab) -> None:
    lab.agent()
    lab.ztunnel()
    lab.put(PLAIN, POD, OTHER)
    app = App(lab.world, lab.world.other, 4)
    old = lab.connect(lab.world.pod, lab.world.other, app.address.port)
    old.recv(100)
    lab.settled(lab.put(AMBIENT))
    new = lab.connect(lab.world.pod, lab.world.other, app.address.port)
    new.recv(100)
    assert lab.http("POST", "/cut?pod=shop/nobody")[0] == 404
    assert lab.http("GET", "/cut?pod=shop/pod")[0] == 405
    status, body = lab.http("POST", "/cut?pod=shop/pod")
    assert (status, '"cut": 1' in body) == (200, True)
    with pytest.raises(OSError, match=r"abort|reset"):
        old.recv(100)
    assert speak(new) == b"ping"
    assert lab.pods()["shop/pod"]["older_connections"] == []
    old.close()
    new.close()
    app.close()


def test_uninstalling_leaves_nothing_even_of_what_is_half_gone(mesh: AgentLab) -> None:
    mesh.processes[0].end()
    (mesh.bpffs / "maps" / "pods").unlink()
    (mesh.root / "state" / "pods" / f"{mesh.uid('pod')}.json").write_text("half")
    assert mesh.agent("--uninstall").popen.wait(90) == 0
    assert not mesh.bpffs.exists()
    for name in ("pod", "other"):
        assert hex(LOOP_MARK) not in rules(mesh, name)
        accept = run(
            "nsenter", f"--net=/run/netns/{mesh.world.prefix}-{name}", "cat", "/proc/sys/net/ipv4/conf/lo/accept_local"
        )
        assert accept.strip() == "0"
        assert mesh.shown(name) is None
    assert not (mesh.root / "state" / "pods").exists()
    assert mesh.agent("--uninstall").popen.wait(90) == 0, "again is fine"


def test_a_second_agent_refuses_to_start(mesh: AgentLab) -> None:
    second = mesh.agent()
    assert second.popen.wait(90) == 1
    assert "another agent runs" in second.text()
