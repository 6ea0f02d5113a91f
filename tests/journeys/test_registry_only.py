"""REGISTRY_ONLY: what no workload or service has cannot be reached from the mesh, and everybody is told why."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from ambient.cli.reach import LabReach
from ambient.kube.objects import Node
from tests.support.fickle import fickle
from tests.support.journey import HTTP, JOIN, LEGACY, OUTSIDE, WEB, Journey, journey
from tests.support.lab import until

STATS = 15020


@pytest.fixture(scope="module")
def mesh() -> Iterator[Journey]:
    with journey("registry", join=False, env={"ztunnel:AMBIENT_OUTBOUND": "REGISTRY_ONLY"}) as found:
        found.lab.apply(fickle("plain/onnode", "n1", "onnode", port=8099, host=True))
        found.lab.wait_ready("plain/onnode")
        found.lab.label("shop", JOIN)
        yield found


def node(mesh: Journey, name: str, version: int) -> str:
    """An address of the node itself: nobody's in the registry, but for what runs on its network."""
    found = mesh.lab.lab.records().find(Node, "", name)
    assert found is not None
    address = next(str(ip) for ip in found.addresses if ip.version == version)
    return f"[{address}]" if version == 6 else address


@pytest.mark.parametrize("version", [4, 6])
def test_what_is_in_the_registry_is_reached(mesh: Journey, version: int) -> None:
    assert mesh.reaches(WEB, "shop/far", version)
    assert mesh.reaches(WEB, LEGACY, version)
    assert mesh.identify(WEB, f"http://far.shop:{HTTP}/id")
    assert mesh.identify(WEB, f"http://headless.shop:{HTTP}/id")


@pytest.mark.parametrize("version", [4, 6])
def test_what_is_not_is_refused_with_the_reason_in_log_counter_and_explanation(mesh: Journey, version: int) -> None:
    host = node(mesh, "n2", version)
    url = f"http://{host}:{STATS}/metrics"
    assert mesh.stage.ask(OUTSIDE, url).out, "whoever is not in the mesh gets there: somebody listens"
    before = refusals(mesh)
    assert mesh.stage.exec(WEB, "curl", "-s", "--max-time", "20", url, timeout_s=60).code in (7, 52, 56)
    until("it is counted", lambda: refusals(mesh) == before + 1)

    def logged() -> bool:
        lines = mesh.stage.logs("n1", "ztunnel").splitlines()
        return any('error="not-in-registry' in line and f"{host}:{STATS}" in line for line in lines)

    until("it is logged", logged)
    said = mesh.stage.command("explain", "--name", mesh.lab.name, WEB, f"{host}:{STATS}", "-o", "json")
    assert said.code == 3
    assert "not-in-registry" in json.loads(said.out)["route"]


@pytest.mark.parametrize("version", [4, 6])
def test_a_pod_on_its_nodes_network_makes_that_nodes_address_known(mesh: Journey, version: int) -> None:
    assert mesh.identify(WEB, f"http://{node(mesh, 'n1', version)}:8099/id")["name"] == "onnode"


def test_a_pod_reaches_itself(mesh: Journey) -> None:
    assert mesh.identify("shop/near", mesh.url("shop/near", 4))
    assert mesh.identify("shop/near", f"http://127.0.0.1:{HTTP}/id")


def refusals(mesh: Journey) -> float:
    text = LabReach(mesh.lab.name).ztunnel("n1", "/metrics", STATS).text
    lines = (line for line in text.splitlines() if 'outbound_refused_total{reason="not-in-registry"}' in line)
    return sum(float(line.rpartition(" ")[2]) for line in lines)
