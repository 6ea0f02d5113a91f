"""The config dump has the shape of a real one: the golden's entries come out of our own values unchanged."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ambient.cli.dump import parse_dump
from ambient.model.workload import Health, Port
from tests.support.discovery import rich_policy, rich_service, rich_workload
from ztunnel.admin import dump
from ztunnel.ipc.messages import LiveConnection

GOLDEN = Path(__file__).parents[2] / "golden" / "ztunnel-config_dump-n1.json"


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    whole: dict[str, Any] = json.loads(GOLDEN.read_text())
    return whole


def test_every_workload_of_the_real_dump_comes_out_as_it_was(golden: dict[str, Any]) -> None:
    read = parse_dump(json.dumps(golden), "n1")
    theirs = {row["uid"]: row for row in golden["workloads"]}
    for value in read.workloads:
        expected = dict(theirs[value.uid])
        # An absent trust domain is read as the default one.
        expected.setdefault("trustDomain", value.trust_domain)
        expected.setdefault("serviceAccount", value.service_account)
        expected["services"] = sorted(value.services) if "services" in expected else []
        ours = dump.workload(value)
        ours.setdefault("services", [])
        assert ours == expected


def test_every_service_of_the_real_dump_comes_out_as_it_was(golden: dict[str, Any]) -> None:
    read = parse_dump(json.dumps(golden), "n1")
    ours = {(row["namespace"], row["hostname"]): row for row in dump.services(read.services, read.workloads)}
    for row in golden["services"]:
        assert ours[row["namespace"], row["hostname"]] == row


def test_every_policy_of_the_real_dump_comes_out_as_it_was(golden: dict[str, Any]) -> None:
    read = parse_dump(json.dumps(golden), "n1")
    assert [dump.policy(value) for value in read.policies] == golden["policies"]


def test_pod_states_have_the_real_ones_keys(golden: dict[str, Any]) -> None:
    ours = dump.pod_state("srv-s", "mesh", "srv-s", up=True, connections=())
    assert ours in golden["workloadState"].values()


def test_connections_are_listed_by_direction() -> None:
    both = [
        LiveConnection(direction="inbound", src="a", original_dst="", actual_dst="b", protocol="HBONE"),
        LiveConnection(direction="outbound", src="c", original_dst="d", actual_dst="e", protocol="TCP"),
    ]
    state = dump.pod_state("n", "ns", "sa", up=False, connections=both)
    assert state["state"] == "Pending"
    assert state["connections"]["inbound"] == [{"src": "a", "originalDst": None, "actualDst": "b", "protocol": "HBONE"}]
    assert state["connections"]["outbound"][0]["originalDst"] == "d"


def test_values_with_everything_set_survive_being_dumped_and_read() -> None:
    service, policy = rich_service(), rich_policy()
    workload = rich_workload()
    text = dump.render(
        {
            "workloads": [dump.workload(workload)],
            "services": dump.services([service], [workload]),
            "policies": [dump.policy(policy)],
        }
    )
    read = parse_dump(text, "n1")
    assert read.policies == (policy,)
    assert read.services[0].key == service.key
    assert read.services[0].addresses == service.addresses
    assert read.workloads[0].waypoint == workload.waypoint


def test_an_endpoint_that_is_not_healthy_is_listed_with_its_status() -> None:
    workload = replace(rich_workload(), status=Health.UNHEALTHY, services={rich_service().key: (Port(80, 8080),)})
    (row,) = dump.services([rich_service()], [workload])
    assert [(one["status"], one["port"]) for one in row["endpoints"].values()] == [("Unhealthy", {"80": 8080})]
    other = replace(workload, services={"b/z": (), "a/y": ()})
    assert dump.workload(other)["services"] == ["a/y", "b/z"]
