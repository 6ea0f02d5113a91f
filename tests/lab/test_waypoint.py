"""A namespace that uses a waypoint: every request passes it or none does, and it knows who asks.

Real Envoy, real ztunnels on both sides, real traffic. Each refusal has beside it the same request that passes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ambient.cli.demo.stage import PYTHON
from ambient.kube.objects import Gateway
from tests.support.lab import LabUnderTest, until
from tests.support.waypoint_lab import (
    WEB,
    apply,
    banner,
    delete_policies,
    echo,
    policy_yaml,
    ready,
    service_yaml,
    status,
    waypoint_lab,
)
from tests.support.waypoint_versions import named

CLIENT = "spiffe://cluster.local/ns/shop/sa/client"
WAYPOINT = "spiffe://cluster.local/ns/shop/sa/waypoint"
FROM_CLIENT = [{"source": {"principals": ["cluster.local/ns/shop/sa/client"]}}]


@pytest.fixture(scope="module")
def lab() -> Iterator[LabUnderTest]:
    with waypoint_lab(**{"ambient.istio.io/xfcc-include-client-identity": "true"}) as lab:
        yield lab


@pytest.fixture(autouse=True)
def no_policies(lab: LabUnderTest) -> Iterator[None]:
    yield
    delete_policies(lab)


def test_a_request_passes_the_waypoint_and_the_application_learns_who_asked(lab: LabUnderTest) -> None:
    heard = echo(lab, "shop/client")
    assert heard["peer"] == lab.ip("shop/waypoint")
    assert heard["headers"]["x-forwarded-for"] == lab.ip("shop/client")
    assert heard["headers"]["x-forwarded-client-cert"] == f"By={WAYPOINT};URI={CLIENT}"


def test_the_gateway_says_that_it_serves_and_where(lab: LabUnderTest) -> None:
    def said() -> dict[str, str]:
        gateway = lab.lab.records().find(Gateway, "shop", "waypoint")
        assert gateway is not None
        assert [one.value for one in gateway.assigned] == ["waypoint.shop.svc.cluster.local"]
        return {one.type: one.status for one in gateway.conditions}

    wanted = {"Accepted": "True", "Programmed": "True", "ambient.mesh/Configured": "True"}
    until("conditions of the Gateway", lambda: said() == wanted)


def test_its_temporary_files_are_out_of_the_machines_folders_and_go_with_it(lab: LabUnderTest) -> None:
    """`down` kills it, so nobody would be left to remove them."""
    roots = [Path(f"/proc/{pid}/root") for pid in lab.status_of("shop/waypoint")["pids"]]
    found = {path.name for root in roots for path in (root / "dev/shm").glob("waypoint-*")}
    assert len(found) == 1
    assert not [place for place in ("/dev/shm", "/tmp") for name in found if Path(place, name).exists()]


def test_a_client_cannot_say_of_itself_who_it_is_or_where_it_comes_from(lab: LabUnderTest) -> None:
    forged = ["-H", "x-forwarded-client-cert: URI=spiffe://cluster.local/ns/shop/sa/admin"]
    heard = echo(lab, "shop/client", *forged, "-H", "x-envoy-upstream-rq-timeout-ms: 1")
    assert heard["headers"]["x-forwarded-client-cert"] == f"By={WAYPOINT};URI={CLIENT}"
    assert "x-envoy-upstream-rq-timeout-ms" not in heard["headers"]
    apply(lab, policy_yaml("by-ip", "ALLOW", {"from": [{"source": {"ipBlocks": [lab.ip("shop/client")]}}]}))
    assert status(lab, "shop/client") == 200
    claims = ["-H", f"x-forwarded-for: {lab.ip('shop/client')}"]
    assert status(lab, "shop/other", *claims) == 403


def test_a_deny_for_a_method_and_a_path_refuses_just_that(lab: LabUnderTest) -> None:
    rule = {"to": [{"operation": {"methods": ["DELETE"], "paths": ["/admin/*"]}}]}
    apply(lab, policy_yaml("no-delete", "DENY", rule))
    answers = [status(lab, "shop/client", "-X", method, url=WEB + path) for method, path in ATTEMPTS]
    assert answers == [403, 403, 403, 200, 200]


ATTEMPTS = (
    ("DELETE", "admin/x"),
    ("DELETE", "admin%2Fx"),
    ("DELETE", "/a/..//admin/x"),
    ("GET", "admin/x"),
    ("DELETE", "other"),
)


def test_a_deny_for_a_path_refuses_every_spelling_of_it(lab: LabUnderTest) -> None:
    paths = ["*:delete", "/v1/{*}:purge", "/a!b", "/gr%C3%B6sse"]
    apply(lab, policy_yaml("spelled", "DENY", {"to": [{"operation": {"paths": paths}}]}))
    found = {path: status(lab, "shop/client", url=WEB + path) for path in (*SPELLINGS, *OTHERS)}
    assert found == {**dict.fromkeys(SPELLINGS, 403), **dict.fromkeys(OTHERS, 200)}


SPELLINGS = [f"v1/x{sign}{verb}" for sign in (":", "%3A", "%3a") for verb in ("delete", "purge")]
SPELLINGS += ["a!b", "a%21b", "%61!b", "gr%C3%B6sse", "gr%c3%b6sse"]
OTHERS = ["v1/x%3Aget", "v1/delete", "a%22b", "grosse"]


def test_an_allow_lets_in_whom_it_names_and_nobody_else(lab: LabUnderTest) -> None:
    assert status(lab, "shop/other") == 200  # what refuses it below is the policy
    apply(lab, policy_yaml("clients", "ALLOW", {"from": FROM_CLIENT}))
    assert (status(lab, "shop/client"), status(lab, "shop/other")) == (200, 403)
    apply(lab, policy_yaml("clients", "ALLOW", {"from": [{"source": {"notPrincipals": ["*/sa/client"]}}]}))
    assert (status(lab, "shop/client"), status(lab, "shop/other")) == (403, 200)


GET_ONLY = {"operation": {"methods": ["GET"]}}
TEMPLATE = {"to": [{"operation": {"paths": ["/users/{*}/cart"]}}]}
RULES: dict[str, tuple[dict[str, Any], list[str], list[str]]] = {
    "host": ({"to": [{"operation": {"hosts": ["web.shop"]}}]}, ["-H", "host: WEB.shop:80"], ["-H", "host: x.shop"]),
    "header": (
        {"when": [{"key": "request.headers[x-team]", "values": ["red*"]}]},
        ["-H", "x-team: reds"],
        ["-H", "x-team: blue"],
    ),
    "namespace": ({"from": [{"source": {"namespaces": ["shop"]}}], "to": [GET_ONLY]}, [], ["-X", "POST"]),
    "port": ({"to": [{"operation": {"ports": ["80"], "methods": ["GET"]}}]}, [], ["-X", "POST"]),
}


@pytest.mark.parametrize("case", RULES)
def test_an_allow_rule_by(lab: LabUnderTest, case: str) -> None:
    rule, good, bad = RULES[case]
    apply(lab, policy_yaml("one", "ALLOW", rule))
    assert (status(lab, "shop/client", *good), status(lab, "shop/client", *bad)) == (200, 403)


def test_an_allow_rule_by_a_path_with_a_part_left_open(lab: LabUnderTest) -> None:
    apply(lab, policy_yaml("one", "ALLOW", TEMPLATE))
    paths = ("users/7/cart", "users/7/x/cart", "users//cart")
    assert [status(lab, "shop/client", url=WEB + path) for path in paths] == [200, 403, 403]


def test_a_dry_run_refuses_nobody(lab: LabUnderTest) -> None:
    apply(lab, policy_yaml("all", "DENY", {}, **{"istio.io/dry-run": "true"}))
    assert status(lab, "shop/client") == 200
    apply(lab, policy_yaml("all", "DENY", {}))
    assert status(lab, "shop/client") == 403


def test_not_a_byte_of_a_tcp_service_reaches_whom_a_policy_refuses(lab: LabUnderTest) -> None:
    assert (banner(lab, "shop/client"), banner(lab, "shop/other")) == ("banner", "banner")
    apply(lab, policy_yaml("tcp", "ALLOW", {"from": FROM_CLIENT}, service="banner"))
    assert (banner(lab, "shop/client"), banner(lab, "shop/other")) == ("banner", "")


SPY = r"""
import socket, sys, threading
stop, tried, heard = threading.Event(), [], []
def ask():
    while not stop.is_set():
        tried.append(1)
        try:
            with socket.create_connection(("unsaid.shop", 9001), 10) as link:
                link.sendall(b"no words of HTTP")
                heard.append(link.recv(64))
        except OSError:
            pass
threads = [threading.Thread(target=ask) for _ in range(8)]
for one in threads: one.start()
print("begun", flush=True)
sys.stdin.readline()
stop.set()
for one in threads: one.join()
print(len(tried), b"".join(heard).decode() or "nothing")
"""


def test_where_nobody_says_what_is_spoken_a_change_of_policies_lets_nobody_in_for_a_moment(lab: LabUnderTest) -> None:
    layer_4 = policy_yaml("unsaid", "ALLOW", {"from": FROM_CLIENT}, service="unsaid")
    layer_7 = policy_yaml("unsaid", "ALLOW", {"from": FROM_CLIENT, "to": [GET_ONLY]}, service="unsaid")
    apply(lab, service_yaml("unsaid", {"port": 9001}, app="web") + layer_7)
    with lab.start("shop/other", PYTHON, "-u", "-c", SPY) as spy:
        assert spy.stdout is not None
        assert spy.stdout.readline() == "begun\n"
        for _ in range(4):
            apply(lab, layer_4)
            assert named(lab, "unsaid.shop") == "web-1"
            apply(lab, layer_7)
            assert named(lab, "unsaid.shop", patience_s=10) == ""
        said, _ = spy.communicate("\n", timeout=200)
    tried, _, heard = said.strip().partition(" ")
    assert int(tried)
    assert heard == "nothing"


def test_nobody_reaches_a_pod_behind_a_waypoint_by_its_own_address(lab: LabUnderTest) -> None:
    direct = f"http://{lab.ip('shop/web-1')}:8080/"
    assert status(lab, "shop/client", url=direct) == 0
    assert status(lab, "shop/client") == 200


def test_with_the_waypoint_killed_nothing_passes_until_it_is_back(lab: LabUnderTest) -> None:
    assert status(lab, "shop/client") == 200
    before = lab.status_of("shop/waypoint")["restarts"]
    for pid in lab.status_of("shop/waypoint")["pids"]:
        lab.signal(pid, "STOP")
    answer = lab.exec("shop/client", "curl", "-s", "-m", "2", WEB)
    assert (answer.returncode != 0, answer.stdout) == (True, "")
    for pid in lab.status_of("shop/waypoint")["pids"]:
        lab.signal(pid, "KILL")
    until("the waypoint was started anew", lambda: lab.status_of("shop/waypoint")["restarts"] > before, 60)
    ready(lab)
    until("requests pass again", lambda: status(lab, "shop/client") == 200, 60)
