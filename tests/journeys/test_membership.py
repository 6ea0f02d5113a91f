"""Joining and leaving by a label: without a restart, without touching an open connection, and never un-meshed."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.journey import BATCH, FAR, JOIN, LEAVE, LINES, NEAR, WEB, Journey, account, journey, server
from tests.support.lab import SLEEP, pod_yaml, until


@pytest.fixture(scope="module")
def mesh() -> Iterator[Journey]:
    with journey("join", join=False) as found:
        yield found


@pytest.fixture(autouse=True)
def _outside_again(mesh: Journey) -> Iterator[None]:
    yield
    mesh.lab.label("shop", LEAVE)
    assert mesh.enrolled() == set()


@pytest.mark.parametrize("version", [4, 6])
def test_joining_restarts_no_pod_and_touches_no_open_connection(mesh: Journey, version: int) -> None:
    url = mesh.url(FAR, version)
    before = mesh.identify(WEB, url)
    with mesh.stage.talk(WEB, mesh.host(FAR, version), LINES) as talk:
        assert talk.next().startswith("got hello")
        mesh.lab.label("shop", JOIN)
        assert mesh.enrolled() == {WEB, BATCH, NEAR, FAR}
        assert talk.echo("as if nothing had happened")
    assert mesh.identify(WEB, url)["started"] == before["started"]


@pytest.mark.parametrize("version", [4, 6])
def test_leaving_goes_back_to_direct_and_open_connections_go_on(mesh: Journey, version: int) -> None:
    mesh.lab.label("shop", JOIN)
    with mesh.stage.talk(WEB, mesh.host(FAR, version), LINES) as talk:
        assert talk.next().startswith("got hello")
        mesh.lab.label("shop", LEAVE)
        assert talk.echo("through the mesh to the end")
        assert mesh.reaches(WEB, FAR, version)


def test_joining_and_leaving_again_and_again_loses_no_request(mesh: Journey) -> None:
    for change in (JOIN, LEAVE, JOIN, LEAVE):
        mesh.lab.label("shop", change)
        assert mesh.reaches(WEB, FAR)
        assert mesh.reaches(WEB, NEAR, 6)


def test_one_side_in_the_mesh_is_enough_to_talk(mesh: Journey) -> None:
    """The label of a pod wins over its namespace's: far stays out while the others are in."""
    apart = server("shop/apart", "n2", account="far")
    apart = apart.replace('"labels": {"app": "apart"}', '"labels": {"app": "apart", "istio.io/dataplane-mode": "none"}')
    mesh.lab.apply(apart)
    try:
        mesh.lab.wait_ready("shop/apart")
        mesh.lab.label("shop", JOIN)
        assert "shop/apart" not in mesh.enrolled()
        assert mesh.reaches(WEB, "shop/apart")
        assert mesh.reaches(WEB, "shop/apart", 6)
    finally:
        mesh.lab.delete(apart)


def test_a_pod_of_a_joined_namespace_is_in_the_mesh_before_its_first_packet(mesh: Journey) -> None:
    mesh.lab.label("shop", JOIN)
    url = mesh.url(FAR, 4, "/")
    early = account("early") + pod_yaml(
        "shop/early",
        ["sh", "-c", f"curl -sS --max-time 60 -d first {url}; exec sleep infinity"],
        node="n1",
        account="early",
    )
    mesh.lab.apply(early)
    try:
        mesh.lab.wait_ready("shop/early")
        until("it is answered", lambda: "first" in mesh.lab.must("logs", "shop/early"))
        asked = ("flows", "--name", mesh.lab.name, "from=shop/early", "-o", "json")
        seen = until("its very first connection went through ztunnel", lambda: mesh.stage.must(*asked).splitlines())
        assert all('"security":"mutual_tls"' in line for line in seen)
    finally:
        mesh.lab.delete(early)


def test_a_pod_that_is_deleted_leaves_no_identity_behind(mesh: Journey) -> None:
    mesh.lab.label("shop", JOIN)
    brief = account("brief") + pod_yaml("shop/brief", SLEEP, node="n1", account="brief")
    mesh.lab.apply(brief)
    asked = ("certs", "--name", mesh.lab.name, "--node", "n1")
    until("it has an identity", lambda: "sa/brief" in mesh.stage.must(*asked))
    mesh.lab.delete(brief)
    until("nobody has it", lambda: "sa/brief" not in mesh.stage.must(*asked))
