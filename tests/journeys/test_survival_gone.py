"""While a part stays dead: what is refused, what works without it, who says why; and the sabotage of it all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from time import monotonic

import pytest

from ambient.datapath.layout import FailMode
from ambient.datapath.maps import Maps
from ambient.lab.lab import remove_pins
from tests.support.faults import CRASHES, deal, kill_ztunnel
from tests.support.journey import FAR, LINES, OUTSIDE, WEB, Journey, account
from tests.support.lab import SLEEP, pod_yaml, until
from tests.support.survival import Load, guarded, nobody_restarts, whole


@pytest.fixture(autouse=True)
def _whole(mesh: Journey) -> Iterator[None]:
    whole(mesh)
    with guarded(mesh):
        yield
    whole(mesh)


def refused_again(load: Load, since: float, times: int = 4) -> bool:
    """Every forbidden client has tried so often."""
    return all(len(source.after(since)) >= times for source in load.refused)


def let_in(load: Load) -> bool:
    return any(event["heard"] for source in load.refused for event in source.events)


@contextmanager
def open_rows(mesh: Journey, node: str) -> Iterator[None]:
    """Its pods fail open meanwhile, and the kernel does not judge for itself (the agent, which sleeps meanwhile, sees
    to that again)."""
    agents = mesh.lab.component(node, "agent")["pids"]
    with ExitStack() as stack, Maps.open(mesh.lab.names.bpffs / node) as tables:
        for pid in agents:
            mesh.lab.signal(pid, "STOP")
            stack.callback(mesh.lab.signal, pid, "CONT")
        tables.deny.delete(tables.deny.tables())
        rows = tables.pods.items()
        for ip, row in rows.items():
            tables.pods.put(ip, replace(row, fail_in=FailMode.OPEN, fail_out=FailMode.OPEN))
        try:
            yield
        finally:
            for ip, row in rows.items():
                tables.pods.put(ip, row)


def test_while_ztunnel_is_dead_nothing_gets_through_and_nothing_goes_in_clear(mesh: Journey) -> None:
    with Load(mesh) as load:
        load.flows()
        with nobody_restarts(mesh):
            for node in ("n1", "n2"):
                kill_ztunnel(mesh, node)
            struck = monotonic()
            until("many have tried", lambda: monotonic() > struck + 2.5)
            lifted = monotonic()
        load.settles(lifted)
    reached = [event for event in load.allowed.after(struck) if event["ended"] < lifted and not event["why"]]
    assert not reached, "closed means closed for everybody"
    assert not load.verdict(struck, lifted).violations


def test_sabotage_rows_that_fail_open_are_seen_at_once(mesh: Journey) -> None:
    with Load(mesh) as load:
        load.flows()
        struck = monotonic()
        with nobody_restarts(mesh), open_rows(mesh, "n1"), open_rows(mesh, "n2"):
            for node in ("n1", "n2"):
                kill_ztunnel(mesh, node)
            gone = monotonic()
            far = mesh.host(FAR, 4)
            until("somebody who may not is let in", lambda: let_in(load))
            until(
                "and what may flow crosses the wires in clear",
                lambda: any(not event["why"] and event["to"] == far for event in load.allowed.after(gone)),
            )
        load.settles(monotonic())
    violations = load.verdict(struck, struck).violations
    assert {"bytes in clear on n1", "bytes in clear on n2"} <= {*violations}
    assert any("was let in" in violation for violation in violations)


def test_sabotage_a_fault_that_is_called_harmless_is_seen_not_to_be(mesh: Journey) -> None:
    crash = next(fault for fault in CRASHES if fault.name == "kill -9 of everything")
    harmless = replace(crash, held="go on", new="go on", back_s=0.3)
    broken = " ".join(harmless.broken(deal(harmless, mesh)))
    assert "the open connection to far" in broken
    assert "back only after" in broken


def test_without_a_control_plane_new_pods_of_known_identities_work_and_others_say_why(mesh: Journey) -> None:
    again = pod_yaml("shop/again", SLEEP, node="n1", account="web")
    stranger = account("stranger") + pod_yaml("shop/stranger", SLEEP, node="n1", account="stranger")
    try:
        with nobody_restarts(mesh):
            for pid in mesh.lab.status()["control"]["pids"]:
                mesh.lab.signal(pid, "KILL")
            mesh.lab.must("apply", "--no-wait", "-f", "-", text=again + stranger)
            mesh.lab.wait_ready("shop/again", "shop/stranger")
            assert {"shop/again", "shop/stranger"} <= mesh.enrolled()
            assert mesh.reaches("shop/again", FAR), "its node has a certificate for web"
            assert not mesh.reaches("shop/stranger", FAR)

            def told() -> list[str]:
                said = mesh.stage.command("certs", "--name", mesh.lab.name).out
                return [line for line in said.splitlines() if "sa/stranger" in line and "Unavailable" in line]

            until("why is told", told)
        whole(mesh)
        assert mesh.reaches("shop/again", FAR)
    finally:
        mesh.lab.delete(again + stranger)


def test_a_node_whose_pins_and_mesh_are_gone_is_closed_again_as_soon_as_its_agent_is_back(mesh: Journey) -> None:
    """Without pins and without the agent nothing in the kernel is left to refuse anybody: the one gap there is."""
    with Load(mesh, wires=()) as load:
        load.flows()
        for pid in mesh.lab.component("n2", "agent")["pids"]:
            mesh.lab.signal(pid, "KILL")
        remove_pins(mesh.lab.names.bpffs / "n2")
        kill_ztunnel(mesh, "n2")
        struck = monotonic()

        def captured() -> bool:
            try:
                with Maps.open(mesh.lab.names.bpffs / "n2") as tables:
                    return bool(tables.pods.items())
            except Exception:
                return False

        until("its pods are captured again", captured)
        back = monotonic()
        load.settles(struck)
        whole(mesh)
        settled = monotonic()
        until("the forbidden have tried again", lambda: refused_again(load, settled))
        entered = [event["began"] for source in load.refused for event in source.events if event["heard"]]
    print(f"\ncaptured again after {back - struck:.2f} s; open until {max(entered, default=struck) - struck:.2f} s")
    assert max(entered, default=struck) < settled, "as soon as the mesh is whole nobody gets in"


def test_a_plaintext_connection_from_that_gap_is_cut(mesh: Journey) -> None:
    """What got in while nothing refused it does not stay."""
    with nobody_restarts(mesh):
        for pid in mesh.lab.component("n2", "agent")["pids"]:
            mesh.lab.signal(pid, "KILL")
        remove_pins(mesh.lab.names.bpffs / "n2")
        until("it gets in", lambda: mesh.reaches(OUTSIDE, FAR))
        sneak = mesh.stage.talk(OUTSIDE, mesh.host(FAR, 4), LINES)
        assert sneak.next().startswith("got hello")
    with sneak:
        assert sneak.next().startswith(("closed", "ended"))
    until("nobody else gets in", lambda: not mesh.reaches(OUTSIDE, FAR))
    until("and who may does again", lambda: mesh.reaches(WEB, FAR))
