"""A waypoint in one of two zones: near endpoints are asked first, the far ones when those are gone."""

from __future__ import annotations

import json

from tests.support.lab import SLEEP, LabUnderTest, lab_under_test, object_yaml, pod_yaml, until
from tests.support.waypoint_lab import NAMESPACE, WEB, account_yaml, echo, gateway_yaml, ready, server_yaml

PORTS = [{"name": "http", "port": 80, "targetPort": 8080}]


def node_yaml(name: str, zone: str) -> str:
    labels = {"topology.kubernetes.io/region": "r", "topology.kubernetes.io/zone": zone}
    return object_yaml("v1", "Node", name, labels=labels)


def service_yaml(distribution: str) -> str:
    spec = {"selector": {"app": "web"}, "ports": PORTS, "trafficDistribution": distribution}
    return object_yaml("v1", "Service", "web", "shop", spec=spec)


def who(lab: LabUnderTest) -> str:
    """Which pod answers, "" when none does."""
    done = lab.exec("shop/client", "curl", "-s", "-m", "3", WEB)
    try:
        return str(json.loads(done.stdout)["pod"])
    except ValueError:
        return ""


def test_the_near_one_answers_and_when_it_is_gone_the_far_one_does() -> None:
    scene = (
        node_yaml("n1", "a")
        + node_yaml("n2", "b")
        + NAMESPACE
        + "".join(map(account_yaml, ("web", "client")))
        + service_yaml("PreferClose")
        + server_yaml("near", "n1")
        + server_yaml("far", "n2")
        + pod_yaml("shop/client", SLEEP, node="n2", account="client")
    )
    with lab_under_test("wayz") as lab:
        lab.up(scene + gateway_yaml(node="n1"), mesh=True)
        ready(lab, resources=6)
        until("the near one answers", lambda: who(lab) == "near", 60)
        assert {echo(lab, "shop/client")["pod"] for _ in range(10)} == {"near"}
        lab.delete(server_yaml("near", "n1"))
        until("the far one answers", lambda: who(lab) == "far", 60)
        assert {echo(lab, "shop/client")["pod"] for _ in range(10)} == {"far"}
        lab.apply(server_yaml("near", "n1"))
        until("the near one answers again", lambda: who(lab) == "near", 60)
