"""Pods that are called by their own addresses, behind a waypoint for workloads: real Envoy, real ztunnels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ambient.cli.demo.stage import PYTHON
from tests.support.lab import SLEEP, LabUnderTest, lab_under_test, namespace_yaml, object_yaml, pod_yaml, until
from tests.support.waypoint_lab import (
    GATEWAY_VERSION,
    POLICY_VERSION,
    SCENE,
    SERVER,
    apply,
    banner,
    delete_policies,
    echo,
    ready,
    status,
)

FROM_CLIENT = [{"source": {"principals": ["cluster.local/ns/shop/sa/client"]}}]
EACH = "http://each.shop:8080/"
BOTH_FAMILIES = (
    "import socket, socketserver\nsocketserver.TCPServer.address_family = socket.AF_INET6\n"
    "socket.getfqdn = lambda name='': name\n"
) + SERVER.replace('"0.0.0.0"', '"::"')
EACH_POD = pod_yaml(
    "shop/each-1",
    [PYTHON, "-u", "-c", BOTH_FAMILIES],
    node="n2",
    account="web",
    labels={"app": "each"},
    readiness={"tcpSocket": {"port": 8080}, "periodSeconds": 1},
)
EACH_PORTS = [{"name": "http", "port": 8080}, {"name": "tcp", "port": 9000}]
HEADLESS = object_yaml(
    "v1", "Service", "each", "shop", spec={"clusterIP": "None", "selector": {"app": "each"}, "ports": EACH_PORTS}
)


def gateway_yaml(traffic: str) -> str:
    spec = {
        "gatewayClassName": "istio-waypoint",
        "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE"}],
    }
    return object_yaml(
        GATEWAY_VERSION, "Gateway", "waypoint", "shop", labels={"istio.io/waypoint-for": traffic}, spec=spec
    )


def policy_yaml(name: str, action: str, *rules: dict[str, Any]) -> str:
    ref = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "waypoint"}
    spec = {"targetRefs": [ref], "action": action, "rules": list(rules)}
    return object_yaml(POLICY_VERSION, "AuthorizationPolicy", name, "shop", spec=spec)


@pytest.fixture(scope="module")
def lab() -> Iterator[LabUnderTest]:
    with lab_under_test("wayw") as lab:
        stranger = pod_yaml("out/stranger", SLEEP, node="n1")
        lab.up(SCENE + HEADLESS + EACH_POD + gateway_yaml("all") + namespace_yaml("out") + stranger, mesh=True)
        ready(lab, resources=6)
        yield lab


@pytest.fixture(autouse=True)
def no_policies(lab: LabUnderTest) -> Iterator[None]:
    yield
    delete_policies(lab)


def direct(lab: LabUnderTest, path: str = "") -> str:
    return f"http://{lab.ip('shop/web-1')}:8080/{path}"


def test_a_pod_is_called_through_its_waypoint_by_its_own_address(lab: LabUnderTest) -> None:
    heard = echo(lab, "shop/client", url=direct(lab))
    assert heard["peer"] == lab.ip("shop/waypoint")
    assert heard["headers"]["x-forwarded-for"] == lab.ip("shop/client")
    assert banner(lab, "shop/client", lab.ip("shop/web-1"), 9000) == "banner"


def test_a_service_without_an_address_is_called_so_too(lab: LabUnderTest) -> None:
    for family in (4, 6):
        heard = echo(lab, "shop/client", f"-{family}", url=EACH)
        assert heard["peer"].removeprefix("::ffff:") == lab.ip("shop/waypoint", family)
        assert heard["headers"]["x-forwarded-for"] == lab.ip("shop/client", family)
        assert banner(lab, "shop/client", lab.ip("shop/each-1", family), 9000) == "banner"
    apply(lab, policy_yaml("get", "DENY", {"to": [{"operation": {"methods": ["DELETE"]}}]}))
    assert [status(lab, "shop/client", "-X", method, url=EACH) for method in ("GET", "DELETE")] == [200, 403]


def test_a_policy_of_the_gateway_judges_every_request_to_a_pod(lab: LabUnderTest) -> None:
    rule = {"from": FROM_CLIENT, "to": [{"operation": {"paths": ["/open/*"], "ports": ["8080"]}}]}
    apply(lab, policy_yaml("open", "ALLOW", rule))
    found = [
        status(lab, pod, url=direct(lab, path))
        for pod, path in (("shop/client", "open/x"), ("shop/client", "shut"), ("shop/other", "open/x"))
    ]
    assert found == [200, 403, 403]
    apply(lab, policy_yaml("open", "ALLOW", {**rule, "to": [{"operation": {"paths": ["/open/*"], "ports": ["81"]}}]}))
    assert status(lab, "shop/client", url=direct(lab, "open/x")) == 403


def test_a_policy_by_address_and_identity_judges_tcp_before_a_byte(lab: LabUnderTest) -> None:
    address = lab.ip("shop/web-1")
    apply(lab, policy_yaml("tcp", "ALLOW", {"from": FROM_CLIENT, "to": [{"operation": {"ports": ["9000"]}}]}))
    assert (banner(lab, "shop/client", address), banner(lab, "shop/other", address)) == ("banner", "")
    apply(lab, policy_yaml("tcp", "DENY", {"to": [{"operation": {"ports": ["9000"]}}]}))
    assert banner(lab, "shop/client", address) == ""
    assert status(lab, "shop/client", url=direct(lab)) == 200


def test_nobody_gets_past_it_or_anywhere_else_through_it(lab: LabUnderTest) -> None:
    assert status(lab, "out/stranger", url=direct(lab)) == 0
    assert status(lab, "out/stranger", url=f"http://{lab.ip('shop/each-1')}:8080/") == 0
    assert status(lab, "shop/client", url=direct(lab)) == 200
    # A pod that it does not stand before is called directly, and not through it.
    assert status(lab, "shop/client", url=f"http://{lab.ip('out/stranger')}:1/") == 0


def test_with_the_waypoint_killed_the_pod_is_reached_by_nobody_until_it_is_back(lab: LabUnderTest) -> None:
    before = lab.status_of("shop/waypoint")["restarts"]
    for pid in lab.status_of("shop/waypoint")["pids"]:
        lab.signal(pid, "STOP")
    answer = lab.exec("shop/client", "curl", "-s", "-m", "2", direct(lab))
    assert (answer.returncode != 0, answer.stdout) == (True, "")
    for pid in lab.status_of("shop/waypoint")["pids"]:
        lab.signal(pid, "KILL")
    until("the waypoint was started anew", lambda: lab.status_of("shop/waypoint")["restarts"] > before, 60)
    ready(lab)
    until("requests pass again", lambda: status(lab, "shop/client", url=direct(lab)) == 200, 60)
