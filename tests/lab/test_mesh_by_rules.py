"""The whole mesh on nodes where nftables captures: the journeys that capture decides, with the real ztunnel.

All journeys go that way with AMBIENT_TEST_CAPTURE=nftables.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from ambient.cli.demo.capture import Capture
from ambient.datapath import nft
from tests.support.journey import (
    BATCH,
    FAR,
    HTTP,
    JOIN,
    LEAVE,
    LEGACY,
    LINES,
    NEAR,
    OUTSIDE,
    WEB,
    Journey,
    journey,
    policy,
    strict,
)
from tests.support.lab import until


@pytest.fixture(scope="module")
def mesh() -> Iterator[Journey]:
    with journey("rules", env={"agent:AMBIENT_CAPTURE": "nftables"}) as found:
        yield found


def has_table(mesh: Journey, pod: str) -> bool:
    namespace, _, name = pod.partition("/")
    fd = os.open(f"/run/netns/{mesh.lab.names.prefix}-pod.{namespace}.{name}", os.O_RDONLY)
    try:
        return nft.is_there(fd)
    finally:
        os.close(fd)


def test_status_tells_how_pods_are_captured(mesh: Journey) -> None:
    said = mesh.stage.must("status", "--name", mesh.lab.name)
    assert "nftables" in said, said
    assert has_table(mesh, WEB)
    assert not has_table(mesh, LEGACY)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("pod", [NEAR, FAR])
def test_wires_carry_tls_and_the_server_sees_the_clients_own_address(mesh: Journey, pod: str, version: int) -> None:
    secret = f"secret-{pod.replace('/', '-')}-{version}"
    with Capture(mesh.lab.name, "n1") as first, Capture(mesh.lab.name, "n2") as second:
        assert mesh.stage.ask(WEB, mesh.url(pod, version, "/"), secret).out == secret
    assert mesh.identify(WEB, mesh.url(pod, version))["peer"] == mesh.host(WEB, version)
    assert first.tls_on(15008)
    for capture in (first, second):
        assert not capture.shows(secret.encode())
        assert capture.ports_from([mesh.host(WEB, version)]) <= {15008}


def test_sabotage_the_same_capture_shows_what_goes_to_a_pod_outside(mesh: Journey) -> None:
    with Capture(mesh.lab.name, "n1") as capture:
        assert mesh.stage.ask(WEB, mesh.url(LEGACY, 4, "/"), "secret-outside").out == "secret-outside"
    assert capture.shows(b"secret-outside")


@pytest.mark.parametrize("name", ["far.shop.svc.cluster.local", "headless.shop"])
def test_names_are_answered_by_ztunnel(mesh: Journey, name: str) -> None:
    assert mesh.identify(WEB, f"http://{name}:{HTTP}/id")["peer"] in {mesh.host(WEB, 4), mesh.host(WEB, 6)}


@pytest.mark.parametrize("version", [4, 6])
def test_strict_refuses_plain_text_and_not_the_kubelets_probes(mesh: Journey, version: int) -> None:
    assert mesh.reaches(OUTSIDE, FAR, version)
    mesh.lab.apply(strict())
    try:
        assert not mesh.reaches(OUTSIDE, FAR, version)
        assert mesh.reaches(WEB, FAR, version)
        mesh.lab.wait_ready(FAR)
    finally:
        mesh.lab.delete(strict())
    assert mesh.reaches(OUTSIDE, FAR, version)


def test_a_policy_names_who_may_come_and_cuts_who_may_not_any_more(mesh: Journey) -> None:
    only = policy("only-web", "ALLOW", [{"from": [{"source": {"principals": ["cluster.local/ns/shop/sa/web"]}}]}])
    with mesh.stage.talk(BATCH, mesh.host(FAR, 4), LINES) as talk:
        assert talk.next().startswith("got hello")
        mesh.lab.apply(only)
        try:
            assert mesh.reaches(WEB, FAR)
            assert not mesh.reaches(BATCH, FAR)
            assert not talk.echo("is this still heard?")
        finally:
            mesh.lab.delete(only)
    assert mesh.reaches(BATCH, FAR)


@pytest.mark.parametrize("version", [4, 6])
def test_leaving_and_joining_cuts_no_open_connection(mesh: Journey, version: int) -> None:
    with mesh.stage.talk(WEB, mesh.host(FAR, version), LINES) as talk:
        assert talk.next().startswith("got hello")
        mesh.lab.label("shop", LEAVE)
        assert talk.echo("through the mesh to the end")
        with mesh.stage.talk(WEB, mesh.host(FAR, version), LINES) as direct:
            assert direct.next().startswith("got hello")
            mesh.lab.label("shop", JOIN)
            assert mesh.enrolled() == {WEB, BATCH, NEAR, FAR}
            assert talk.echo("still")
            assert direct.echo("and in the clear")
    assert mesh.reaches(WEB, FAR, version)


def test_without_ztunnel_nothing_leaves_and_with_the_next_one_everything_goes_on(mesh: Journey) -> None:
    pids = mesh.lab.component("n1", "ztunnel")["pids"]
    with Capture(mesh.lab.name, "n2") as capture:
        for pid in pids:
            mesh.lab.signal(pid, "STOP")
        try:
            mesh.stage.ask(WEB, mesh.url(FAR, 4, "/"), "secret-stopped")
        finally:
            for pid in reversed(pids):
                mesh.lab.signal(pid, "KILL")
    assert not capture.shows(b"secret-stopped")
    until("the next ztunnel serves", lambda: mesh.reaches(WEB, FAR))
    assert mesh.reaches(WEB, NEAR, 6)


def test_what_was_released_keeps_no_rule(mesh: Journey) -> None:
    mesh.lab.label("shop", LEAVE)
    for pod in (WEB, NEAR, FAR):
        until(f"{pod} has no table", lambda pod=pod: not has_table(mesh, pod))  # type: ignore[misc]
    mesh.lab.label("shop", JOIN)
    assert has_table(mesh, WEB)
