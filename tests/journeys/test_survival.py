"""What survives what, the table in docs/architecture.md: one part dies; open and new connections, and its return."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from ambient.cli.demo.capture import Capture
from ambient.cli.demo.stage import Conversation
from tests.support.journey import BATCH, FAR, LINES, WEB, Journey, account, policy, server
from tests.support.lab import SLEEP, pod_yaml, until

"""All of ztunnel is back within this."""


def _processes(mesh: Journey, node: str, module: str) -> list[int]:
    """Pids of one part of a node's ztunnel: "ztunnel.worker", "ztunnel.director" or "ztunnel"."""

    def runs(pid: int) -> bool:
        try:
            arguments = Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ").split(" ")
        except OSError:
            return False
        return module in arguments

    return [pid for pid in mesh.lab.component(node, "ztunnel")["pids"] if runs(pid)]


def _ready(mesh: Journey) -> bool:
    return mesh.stage.command("check", "--name", mesh.lab.name).code == 0


@pytest.fixture(autouse=True)
def _healthy(mesh: Journey) -> Iterator[None]:
    """Every test begins and ends with a mesh that is whole."""
    until("the mesh is whole", lambda: _ready(mesh))
    yield
    until("the mesh is whole again", lambda: _ready(mesh))


@pytest.fixture
def talk(mesh: Journey) -> Iterator[Conversation]:
    """An open connection from web to far."""
    with mesh.stage.talk(WEB, mesh.host(FAR, 4), LINES) as conversation:
        assert conversation.next().startswith("got hello")
        yield conversation


@contextmanager
def _stopped(mesh: Journey, pids: list[int]) -> Iterator[None]:
    """As good as gone: it answers nothing, and nobody starts another."""
    for pid in pids:
        mesh.lab.signal(pid, "STOP")
    try:
        yield
    finally:
        for pid in pids:
            mesh.lab.signal(pid, "CONT")


@pytest.mark.parametrize("node", ["n1", "n2"])
def test_a_worker_dies_only_its_own_connections_end_and_others_take_new_ones_at_once(mesh: Journey, node: str) -> None:
    workers = _processes(mesh, node, "ztunnel.worker")
    assert len(workers) >= 2
    clients = {pid: f"client-{node}-{slot}" for slot, pid in enumerate(workers)}
    mesh.lab.apply("".join(account(c) + pod_yaml(f"shop/{c}", SLEEP, node="n1", account=c) for c in clients.values()))
    with ExitStack() as stack:
        held: dict[int, Conversation] = {}
        # While the others are stopped a worker takes what comes; from a new identity each, so there is no tunnel yet.
        for pid, client in clients.items():
            with _stopped(mesh, [other for other in workers if other != pid]):
                held[pid] = stack.enter_context(mesh.stage.talk(f"shop/{client}", mesh.host(FAR, 4), LINES))
                assert held[pid].next().startswith("got hello")
        victim, *others = workers
        mesh.lab.signal(victim, "KILL")
        assert all(mesh.reaches(WEB, FAR) for _ in range(5)), "new connections, at once"
        ended = held[victim].next()
        assert ended.startswith("closed"), "its own connection ends"
        assert "reset" in ended, "and not as if all had been said"
        assert all(held[pid].echo("unharmed") for pid in others)
    until("another worker took its place", lambda: len(_processes(mesh, node, "ztunnel.worker")) == len(workers))


@pytest.mark.parametrize("node", ["n1", "n2"])
def test_the_director_dies_and_connections_old_and_new_go_on(mesh: Journey, talk: Conversation, node: str) -> None:
    assert mesh.reaches(WEB, FAR)
    (director,) = _processes(mesh, node, "ztunnel.director")
    mesh.lab.signal(director, "KILL")
    assert talk.echo("during")
    assert mesh.reaches(WEB, FAR), "a known route, while there is no director or a fresh one"
    until("a director is back", lambda: _processes(mesh, node, "ztunnel.director") not in ([], [director]))
    until("and ready", lambda: _ready(mesh))
    assert talk.echo("after")
    closed = policy("closed", "ALLOW", [])
    mesh.lab.apply(closed)
    try:
        assert talk.next().startswith(("closed", "ended")), "the new director's word counts for old connections"
        assert not mesh.reaches(WEB, FAR)
    finally:
        mesh.lab.delete(closed)


@pytest.mark.parametrize("node", ["n1", "n2"])
def test_all_of_ztunnel_dies_nothing_goes_in_clear_and_it_is_back_every_time(mesh: Journey, node: str) -> None:
    secret = "secret-of-the-gap"
    for _ in range(3):
        with mesh.stage.talk(WEB, mesh.host(FAR, 4), LINES) as talk, Capture(mesh.lab.name, "n2") as capture:
            assert talk.next().startswith("got hello")
            for pid in mesh.lab.component(node, "ztunnel")["pids"]:
                mesh.lab.signal(pid, "KILL")
            answered = until(
                "a request gets through again", lambda: mesh.stage.ask(WEB, mesh.url(FAR, 4, "/"), secret).out
            )
            assert answered == secret
            assert talk.next().startswith(("closed", "ended")), "its own connections end"
        assert not capture.shows(secret.encode())
        until("the mesh is whole", lambda: _ready(mesh))


def test_without_ztunnel_new_connections_are_refused_and_not_passed_in_clear(mesh: Journey) -> None:
    secret = "secret-without-ztunnel"
    pids = mesh.lab.component("n1", "ztunnel")["pids"]
    with Capture(mesh.lab.name, "n2") as capture, _stopped(mesh, pids):
        assert mesh.stage.ask(WEB, mesh.url(FAR, 4, "/"), secret).code != 0
    assert not capture.shows(secret.encode())


@pytest.mark.parametrize("node", ["n1", "n2"])
def test_the_agent_dies_and_connections_old_and_new_go_on(mesh: Journey, talk: Conversation, node: str) -> None:
    pid = mesh.lab.component(node, "agent")["pid"]
    mesh.lab.signal(pid, "KILL")
    assert talk.echo("during")
    assert mesh.reaches(WEB, FAR)
    until("an agent is back", lambda: mesh.lab.component(node, "agent")["pid"] not in (None, pid))
    until("and ready", lambda: _ready(mesh))
    assert talk.echo("after")
    assert mesh.reaches(WEB, FAR)


def test_without_an_agent_no_pod_of_the_mesh_starts_and_with_it_it_does(mesh: Journey) -> None:
    """Also what a node that comes back from a reboot is like: enrolment comes before the pod's first instruction."""
    late = account("late") + pod_yaml(
        "shop/late", ["sh", "-c", "echo started; exec sleep infinity"], node="n1", account="late"
    )
    with _stopped(mesh, mesh.lab.component("n1", "agent")["pids"]):
        mesh.lab.must("apply", "--no-wait", "-f", "-", text=late)
        until("its network is there", lambda: mesh.lab.status_of("shop/late")["ips"])
        assert not mesh.lab.status_of("shop/late")["pids"]
    try:
        mesh.lab.wait_ready("shop/late")
        assert "shop/late" in mesh.enrolled()
    finally:
        mesh.lab.delete(late)


def test_the_control_plane_is_gone_and_connections_old_and_new_go_on(mesh: Journey, talk: Conversation) -> None:
    control = mesh.lab.status()["control"]
    with _stopped(mesh, control["pids"]):
        assert talk.echo("during")
        assert mesh.reaches(WEB, FAR)
        assert mesh.reaches(BATCH, FAR, 6)
    assert talk.echo("after")


def test_the_control_plane_dies_and_nothing_is_lost(mesh: Journey, talk: Conversation) -> None:
    control = mesh.lab.status()["control"]["pid"]
    mesh.lab.signal(control, "KILL")
    assert talk.echo("during")
    assert mesh.reaches(WEB, FAR)
    until("it is back", lambda: mesh.lab.status()["control"]["pid"] not in (None, control))
    until("and has everybody", lambda: _ready(mesh))
    closed = policy("closed", "ALLOW", [])
    mesh.lab.apply(closed)
    try:
        assert talk.next().startswith(("closed", "ended"))
    finally:
        mesh.lab.delete(closed)


def test_a_ztunnel_that_starts_without_a_control_plane_serves_from_what_it_knew(mesh: Journey) -> None:
    with _stopped(mesh, mesh.lab.status()["control"]["pids"]):
        for pid in mesh.lab.component("n2", "ztunnel")["pids"]:
            mesh.lab.signal(pid, "KILL")
        until("a request gets through again", lambda: mesh.reaches(WEB, FAR))
        closed = policy("closed", "ALLOW", [])
        mesh.lab.must("apply", "--no-wait", "-f", "-", text=closed)
    try:
        until("once the control plane is back its word counts", lambda: not mesh.reaches(WEB, FAR))
    finally:
        mesh.lab.delete(closed)


def test_sabotage_a_connection_of_a_dead_server_is_seen_to_end(mesh: Journey) -> None:
    """The conversation that the others watch does notice when something is gone."""
    mortal = account("mortal") + server("shop/mortal", "n2", account="mortal") + pod_yaml("shop/idle", SLEEP, node="n2")
    mesh.lab.apply(mortal)
    mesh.lab.wait_ready("shop/mortal")
    with mesh.stage.talk(WEB, mesh.host("shop/mortal", 4), LINES) as talk:
        assert talk.next().startswith("got hello")
        mesh.lab.delete(mortal)
        assert talk.next().startswith(("closed", "ended"))
