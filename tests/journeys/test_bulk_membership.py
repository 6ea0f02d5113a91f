"""Joining and leaving under load: every connection succeeds, the old ones go on, and only who asks ends them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.journey import JOIN, LEAVE, LINES, Journey
from tests.support.load_joining import CLIENT, FAR, NEAR, ORDERS, changes_under_load, two_namespaces


@pytest.fixture(scope="module")
def mesh() -> Iterator[Journey]:
    with two_namespaces("bulk") as found:
        yield found


def _pods(mesh: Journey) -> dict[str, dict[str, Any]]:
    listed = json.loads(mesh.stage.must("pods", "--name", mesh.lab.name, "-o", "json"))
    return {f"{pod['namespace']}/{pod['name']}": pod for pod in listed}


def test_no_connection_fails_whoever_joins_or_leaves_first(mesh: Journey) -> None:
    scene = changes_under_load(mesh, ORDERS)
    assert not scene.broken, str(scene)
    assert scene.figures["held"] == 8


@pytest.mark.parametrize("version", [4, 6])
def test_connections_that_predate_enrolment_are_listed_and_end_only_on_request(mesh: Journey, version: int) -> None:
    talk = mesh.stage.talk
    with talk(CLIENT, mesh.host(FAR, version), LINES) as old, talk(CLIENT, mesh.host(NEAR, version), LINES) as other:
        assert old.next().startswith("got hello")
        assert other.next().startswith("got hello")
        for namespace in ("east", "west"):
            mesh.lab.label(namespace, JOIN)
        try:
            pods = _pods(mesh)
            listed = {name: len(pods[name]["older_connections"]) for name in (CLIENT, FAR, NEAR)}
            assert listed == {CLIENT: 2, FAR: 1, NEAR: 1}
            with talk(CLIENT, mesh.host(FAR, version), LINES) as new:
                assert new.next().startswith("got hello")
                assert "CUT" in mesh.stage.must("pods", "--name", mesh.lab.name, "--cut", FAR)
                assert old.next().startswith("closed"), "it predates the enrolment of the pod"
                assert new.echo("through the mesh"), "it does not"
            assert other.echo("of another pod")
            assert [pod for pod, entry in _pods(mesh).items() if entry["older_connections"]] == [NEAR, CLIENT][::-1]
            cut = json.loads(mesh.stage.must("pods", "--name", mesh.lab.name, "--cut", CLIENT, "-o", "json"))
            assert cut[0]["cut"] == 1
            assert other.next().startswith("closed")
        finally:
            for namespace in ("east", "west"):
                mesh.lab.label(namespace, LEAVE)
