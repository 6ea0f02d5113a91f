"""An agent on a node without eBPF: pods are captured by nftables in their namespaces, under the same promises."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from ambient.datapath import nft
from ambient.datapath.layout import Flag
from ambient.datapath.rules import PROBE_SOURCES, removal
from ambient.model.address import PROXY_MARK
from tests.support.agent_lab import AgentLab, agent_lab, eventually, namespace, pod, settled_world
from tests.support.capture_world import Place, World, family_of, run
from tests.support.rules import foreign_table, is_proxied, rows_of, untouched
from tests.support.stand_in import App

AMBIENT = namespace("shop", "ambient")
PLAIN = namespace("shop")
POD = pod("pod", ["10.213.1.2", "fd00:213:1::2"])
OTHER = pod("other", ["10.213.2.2", "fd00:213:2::2"])
DIES_COMING = ["before ATTACH", "after ATTACH", "after ROW"]
DIES_GOING = ["after release ROW", "before undo ROUTES"]


@pytest.fixture(scope="module")
def the_world() -> Iterator[World]:
    with settled_world(f"amb-agr-{os.getpid()}") as made:
        yield made


@pytest.fixture
def lab(the_world: World) -> Iterator[AgentLab]:
    with agent_lab(the_world, AMBIENT_CAPTURE="nftables") as made:
        yield made


@pytest.fixture
def mesh(lab: AgentLab) -> AgentLab:
    """Agent and ztunnel run, both pods are in the mesh."""
    lab.agent()
    lab.ztunnel()
    lab.settled(lab.put(AMBIENT, POD, OTHER))
    return lab


@pytest.fixture
def serve(the_world: World) -> Iterator[Callable[..., App]]:
    made: list[App] = []

    def start(place: Place, version: int = 4) -> App:
        made.append(App(the_world, place, version))
        return made[-1]

    yield start
    for app in made:
        app.close()


def speak(connection: socket.socket) -> bytes:
    connection.sendall(b"ping")
    return connection.recv(100)


def repairs(lab: AgentLab) -> str:
    return lab.http("GET", "/metrics")[1]


@pytest.mark.parametrize("version", [4, 6])
def test_joining_and_leaving_touches_no_open_connection(lab: AgentLab, serve: Callable[..., App], version: int) -> None:
    lab.agent()
    lab.ztunnel()
    lab.settled(lab.put(PLAIN, POD, OTHER))
    app = serve(lab.world.other, version)
    with lab.connect(lab.world.pod, lab.world.other, app.address.port, version=version) as old:
        assert not is_proxied(old)
        lab.settled(lab.put(AMBIENT))
        assert lab.shown("pod") == lab.shown("other") == "enabled"
        assert speak(old) == b"ping"
        with lab.connect(lab.world.pod, lab.world.other, app.address.port, version=version) as new:
            assert is_proxied(new)
            lab.settled(lab.put(PLAIN))
            assert lab.shown("pod") is None
            assert speak(old) == speak(new) == b"ping"
            with lab.connect(lab.world.pod, lab.world.other, app.address.port, version=version) as newest:
                assert not is_proxied(newest)
                assert not untouched(lab, lab.world.pod), "released before its proxied connection ended"
                new.close()
                eventually(lambda: untouched(lab, lab.world.pod), "nothing is left of one pod")
                eventually(lambda: untouched(lab, lab.world.other), "nor of the other")
                eventually(lambda: not nft.is_there(lab.world.node.netns), "nor of the node")
                assert speak(old) == speak(newest) == b"ping"


def test_what_captures_is_told_with_what_it_lacks(mesh: AgentLab) -> None:
    said = json.loads(mesh.http("GET", "/datapath")[1])
    assert (said["via"], said["why"]) == ("nftables", "it is set so")
    assert "ztunnel alone judges" in said["lacks"]
    page = json.loads(mesh.http("GET", "/pods")[1])
    assert page["counters"]["refused"] == {}, "nobody counts, which is not the same as nothing"
    assert page["policy_rows"] == 0
    assert "ambient_datapath_refused_total{" not in repairs(mesh)


def test_name_queries_are_ztunnels_to_answer(mesh: AgentLab) -> None:
    for version in (4, 6):
        resolver = mesh.world.outside.ip(version)
        with mesh.world.socket(mesh.world.pod, family_of(version), socket.SOCK_DGRAM) as client:
            client.settimeout(60)
            client.connect((str(resolver), 53))
            client.send(b"who")
            assert client.recv(100).startswith(f"who {'[' if version == 6 else ''}{resolver}".encode())
        with mesh.world.socket(mesh.world.pod, family_of(version)) as client:
            client.settimeout(60)
            client.connect((str(resolver), 53))
            assert client.recv(100) == b"names\n"


def test_without_ztunnel_a_pod_is_closed_both_ways(mesh: AgentLab, serve: Callable[..., App]) -> None:
    ways = []
    for version in (4, 6):
        inside, outside = serve(mesh.world.pod, version), serve(mesh.world.outside, version)
        ways.append((mesh.world.pod, mesh.world.outside, outside.address.port, version))
        ways.append((mesh.world.outside, mesh.world.pod, inside.address.port, version))
    mesh.processes[1].end(signal.SIGKILL)
    for way in ways:
        with pytest.raises(OSError, match="timed out"):
            mesh.connect(*way, patience_s=0.4)
    # Sabotage: without the table, and without an agent who would put it back, the same connections are made.
    mesh.processes[0].end(signal.SIGKILL)
    nft.remove(mesh.world.pod.netns)
    for way in ways:
        with mesh.connect(*way) as client:
            assert not is_proxied(client)


def test_a_connection_through_ztunnel_does_not_go_on_in_the_clear_without_it(
    mesh: AgentLab, serve: Callable[..., App]
) -> None:
    app = serve(mesh.world.outside)
    with mesh.connect(mesh.world.pod, mesh.world.outside, app.address.port) as client:
        assert is_proxied(client)
        mesh.processes[1].end(signal.SIGKILL)
        with suppress(ConnectionError):
            assert not speak(client), "it ended with ztunnel"
            client.sendall(b"secret")
            assert client.recv(100) == b""


@pytest.mark.parametrize("harm", ["deleted", "a rule before ours"])
def test_what_a_stranger_does_to_the_rules_is_repaired_and_told(
    mesh: AgentLab, serve: Callable[..., App], harm: str
) -> None:
    place, app = mesh.world.pod, serve(mesh.world.outside)
    before = nft.listing(place.netns)
    nft.put(
        place.netns,
        {
            "deleted": removal(),
            "a rule before ours": "insert rule inet ambient output accept\n",
        }[harm],
    )
    mesh.processes[0].wait_for("somebody changed or deleted the mesh's rules")
    eventually(lambda: nft.listing(place.netns) == before, "the rules are as they were")
    eventually(lambda: 'ambient_agent_repairs_total{what="rules"} 1' in repairs(mesh), "it is counted once")
    with mesh.connect(place, mesh.world.outside, app.address.port) as client:
        assert is_proxied(client)


def test_the_nodes_own_rules_are_repaired_and_other_tables_are_no_damage(mesh: AgentLab) -> None:
    foreign_table(mesh.world.pod)
    before = nft.listing(mesh.world.node.netns)
    nft.remove(mesh.world.node.netns)
    eventually(lambda: nft.listing(mesh.world.node.netns) == before, "the node's rules are back")
    eventually(lambda: 'ambient_agent_repairs_total{what="rules"} 1' in repairs(mesh), "and nothing else was mended")
    nft.remove(mesh.world.pod.netns)
    eventually(lambda: 'ambient_agent_repairs_total{what="rules"} 2' in repairs(mesh), "ours is seen, though")


def test_a_dead_agent_changes_nothing_and_the_next_one_takes_over(mesh: AgentLab, serve: Callable[..., App]) -> None:
    app = serve(mesh.world.other)
    with mesh.connect(mesh.world.pod, mesh.world.other, app.address.port) as before:
        assert is_proxied(before)
        mesh.processes[0].end(signal.SIGKILL)
        with mesh.connect(mesh.world.pod, mesh.world.other, app.address.port) as during:
            assert is_proxied(during)
            agent = mesh.agent()
            agent.wait_for("in the mesh (as before)", times=2)
            mesh.processes[1].wait_for("snapshot", times=2)
            assert "down" not in mesh.processes[1].text()
            assert speak(before) == speak(during) == b"ping"
    with mesh.connect(mesh.world.pod, mesh.world.other, app.address.port) as after:
        assert is_proxied(after)


def test_what_went_while_the_agent_was_dead_is_collected(mesh: AgentLab) -> None:
    mesh.processes[0].end(signal.SIGKILL)
    mesh.delete("Pod", "pod")
    for path in (mesh.root / "state" / "pods").glob("*.json"):
        if mesh.uid("other") not in path.name:
            path.unlink()  # not even the journal knows
    mesh.agent()
    eventually(lambda: not nft.is_there(mesh.world.pod.netns), "the rules of the deleted pod are gone")
    assert nft.is_there(mesh.world.other.netns)


def test_a_probe_of_the_kubelet_reaches_the_pod_and_nobody_elses_connection_does(
    mesh: AgentLab, serve: Callable[..., App]
) -> None:
    apps = {version: serve(mesh.world.pod, version) for version in (4, 6)}
    ports: list[int] = []

    def probe(version: int, owner: str) -> tuple[str, bool]:
        """Whom the application sees, and whether it is by the port that the prober has."""
        with mesh.world.socket(mesh.world.node, family_of(version), owner=owner) as probe:
            probe.settimeout(60)
            probe.connect((str(apps[version].address.ip), apps[version].address.port))
            seen, _, port = probe.recv(100).decode().strip().partition(" ")
            ports.append(probe.getsockname()[1])
            return seen, port == str(ports[-1])

    def somebody_by_port(version: int, port: int) -> str:
        """Whom the application sees when somebody outside has the port of a probe that was just made."""
        with mesh.world.socket(mesh.world.outside, family_of(version)) as thief:
            thief.settimeout(60)
            thief.bind(("::" if version == 6 else "0.0.0.0", port))
            thief.connect((str(apps[version].address.ip), apps[version].address.port))
            return thief.recv(100).decode().partition(" ")[0]

    for version in (4, 6):
        assert probe(version, "kubelet")[:1] == (str(PROBE_SOURCES[version == 6]),)
        assert somebody_by_port(version, ports[-1]) != str(PROBE_SOURCES[version == 6])
        assert not probe(version, "app")[1], "ztunnel is between them"
    mesh.processes[1].end(signal.SIGKILL)
    for version in (4, 6):
        assert probe(version, "kubelet")[1], "probes do not need ztunnel"


def test_nobody_borrows_the_address_of_probes(mesh: AgentLab, serve: Callable[..., App]) -> None:
    app = serve(mesh.world.pod)
    inside = ("nsenter", f"--net=/run/netns/{mesh.world.prefix}-outside")
    run(*inside, "ip", "addr", "add", f"{PROBE_SOURCES[0]}/32", "dev", "lo")
    node = ("nsenter", f"--net=/run/netns/{mesh.world.prefix}-node")
    run(*node, "ip", "route", "add", f"{PROBE_SOURCES[0]}/32", "dev", "outside")  # even answers would find it
    try:
        with mesh.world.socket(mesh.world.outside, socket.AF_INET) as thief:
            thief.settimeout(0.4)
            thief.bind((str(PROBE_SOURCES[0]), 0))
            with pytest.raises(OSError, match="timed out"):
                thief.connect((str(app.address.ip), app.address.port))
        # Sabotage: without the node's rules, and an agent who puts them back, the pod would believe it.
        mesh.processes[0].end(signal.SIGKILL)
        nft.remove(mesh.world.node.netns)
        with mesh.world.socket(mesh.world.outside, socket.AF_INET) as thief:
            thief.settimeout(60)
            thief.bind((str(PROBE_SOURCES[0]), 0))
            thief.connect((str(app.address.ip), app.address.port))
            assert not is_proxied(thief)
    finally:
        run(*inside, "ip", "addr", "del", f"{PROBE_SOURCES[0]}/32", "dev", "lo")
        run(*node, "ip", "route", "del", f"{PROBE_SOURCES[0]}/32", "dev", "outside")


def test_the_mark_of_ztunnel_helps_nobody_else(mesh: AgentLab, serve: Callable[..., App]) -> None:
    app = serve(mesh.world.outside)
    for owner, proxied in (("app", True), ("ztunnel", False)):
        with mesh.world.socket(mesh.world.pod, socket.AF_INET, owner=owner) as forger:
            forger.settimeout(60)
            forger.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, PROXY_MARK)
            forger.connect((str(app.address.ip), app.address.port))
            assert is_proxied(forger) is proxied
    with mesh.connect(mesh.world.pod, mesh.world.outside, app.address.port) as late:
        late.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, PROXY_MARK)
        assert is_proxied(late), "a mark that comes later changes nothing"
        assert speak(late) == b"ping"


def test_a_socket_bound_to_the_interface_does_not_get_past_ztunnel(mesh: AgentLab, serve: Callable[..., App]) -> None:
    app = serve(mesh.world.outside)
    with mesh.world.socket(mesh.world.pod, socket.AF_INET) as bound:
        bound.settimeout(0.4)
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
        with pytest.raises(OSError, match=r"timed out|not permitted"):
            bound.connect((str(app.address.ip), app.address.port))


@pytest.mark.parametrize("where", DIES_COMING)
def test_killed_on_the_way_in(lab: AgentLab, serve: Callable[..., App], where: str) -> None:
    lab.ztunnel()
    lab.put(AMBIENT, POD)
    assert lab.agent_that_dies(where).popen.wait(90) == -9
    lab.agent()
    lab.enrolled("pod")
    with lab.connect(lab.world.pod, lab.world.outside, serve(lab.world.outside).address.port) as client:
        assert is_proxied(client)
    rows = rows_of(lab.world.pod)
    assert {*rows} == {lab.world.pod.ip(4), lab.world.pod.ip(6)}
    assert all(Flag.CAPTURE_OUT | Flag.CAPTURE_IN in row.flags for row in rows.values())


@pytest.mark.parametrize("where", DIES_GOING)
def test_killed_on_the_way_out(lab: AgentLab, where: str) -> None:
    lab.ztunnel()
    lab.put(AMBIENT, POD)
    dying = lab.agent_that_dies(where)
    lab.enrolled("pod")
    lab.put(PLAIN)
    assert dying.popen.wait(90) == -9
    lab.agent()
    eventually(lambda: untouched(lab, lab.world.pod), "nothing of ours is left in the pod")
    eventually(lambda: not list((lab.root / "state" / "pods").iterdir()), "nor in the journal")


def test_uninstalling_leaves_nothing_even_of_what_is_half_gone(mesh: AgentLab) -> None:
    mesh.processes[0].end()
    (mesh.root / "state" / "pods" / f"{mesh.uid('pod')}.json").write_text("half")
    assert mesh.agent("--uninstall").popen.wait(90) == 0
    for place in (mesh.world.pod, mesh.world.other):
        assert untouched(mesh, place)
    assert not nft.is_there(mesh.world.node.netns)
    assert mesh.shown("pod") is None
    assert not (mesh.root / "state" / "rule-owners.json").exists()
    assert mesh.agent("--uninstall").popen.wait(90) == 0, "again is fine"


def test_where_ebpf_is_refused_rules_capture_by_themselves_and_say_why(
    lab: AgentLab, serve: Callable[..., App], tmp_path: Path
) -> None:
    lab.settings |= {"AMBIENT_CAPTURE": "auto", "AMBIENT_BPFFS": str(tmp_path / "no-bpffs")}
    lab.agent()
    lab.ztunnel()
    lab.settled(lab.put(AMBIENT, POD))
    said = json.loads(lab.http("GET", "/datapath")[1])
    assert said["via"] == "nftables"
    assert "eBPF cannot be had" in said["why"]
    assert "bpffs" in said["why"]
    with lab.connect(lab.world.pod, lab.world.outside, serve(lab.world.outside).address.port) as client:
        assert is_proxied(client)


def test_sabotage_a_node_that_may_only_use_programs_does_not_start_without_them(lab: AgentLab, tmp_path: Path) -> None:
    lab.settings |= {"AMBIENT_CAPTURE": "tcx", "AMBIENT_BPFFS": str(tmp_path / "no-bpffs")}
    agent = lab.agent()
    assert agent.popen.wait(90) == 1
    assert "not a bpffs" in agent.text()


def test_a_table_of_another_mesh_is_not_taken_over(lab: AgentLab) -> None:
    theirs = 'table inet ambient { comment "ambient somebody-else uid"; }\n'
    nft.put(lab.world.pod.netns, theirs)
    agent = lab.agent()
    lab.ztunnel()
    lab.put(AMBIENT, POD, OTHER)
    lab.enrolled("other")
    agent.wait_for("another mesh captures this pod")
    listing = nft.listing(lab.world.pod.netns)
    assert listing is not None
    assert "somebody-else" in listing


def test_a_node_goes_on_with_what_captures_its_pods_already(mesh: AgentLab, serve: Callable[..., App]) -> None:
    mesh.processes[0].end()
    mesh.settings["AMBIENT_CAPTURE"] = "tcx"
    refused = mesh.agent()
    assert refused.popen.wait(90) == 1
    assert "pods here are captured by rules" in refused.text()
    mesh.settings["AMBIENT_CAPTURE"] = "auto"
    mesh.agent().wait_for("in the mesh (as before)", times=2)
    assert json.loads(mesh.http("GET", "/datapath")[1])["via"] == "nftables"
    with mesh.connect(mesh.world.pod, mesh.world.outside, serve(mesh.world.outside).address.port) as client:
        assert is_proxied(client)


def test_rules_do_not_take_pods_from_programs(lab: AgentLab, tmp_path: Path) -> None:
    (tmp_path / "bpf" / "pods" / "uid-of-a-pod").mkdir(parents=True)  # where the pins of its links would be
    lab.settings["AMBIENT_BPFFS"] = str(tmp_path / "bpf")
    refused = lab.agent()
    assert refused.popen.wait(90) == 1
    assert "pods here are captured by programs" in refused.text()
