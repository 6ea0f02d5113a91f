"""Routes that change under a steady load of 500 requests a second: not one request fails. Beside it what the Gateway
API's other routes and fields do: sessions, retries, timeouts, CORS, methods of gRPC, connections by weight and name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ambient.cli.demo.stage import PYTHON
from tests.support.lab import LabUnderTest
from tests.support.waypoint_lab import WEB, apply, echo, ready, status, waypoint_lab
from tests.support.waypoint_versions import (
    GROUP,
    STEADY,
    VERSIONS,
    named,
    pods,
    route_yaml,
    rule_yaml,
    to,
    virtual_yaml,
)

REQUESTS = 3000


@pytest.fixture(scope="module")
def lab() -> Iterator[LabUnderTest]:
    with waypoint_lab(VERSIONS + rule_yaml()) as lab:
        lab.wait_ready("shop/web-v1", "shop/web-v2")
        yield lab


def backends(*weights: tuple[str, int], port: int = 80) -> list[dict[str, Any]]:
    return [{"name": name, "port": port, "weight": weight} for name, weight in weights]


def http(*rules: dict[str, Any]) -> str:
    return route_yaml("HTTPRoute", *rules)


def test_no_request_fails_while_a_canary_takes_over_and_routes_change(lab: LabUnderTest) -> None:
    def version(name: str) -> list[dict[str, Any]]:
        told = {"set": [{"name": "x-version", "value": name}]}
        return [{"type": "ResponseHeaderModifier", "responseHeaderModifier": told}]

    def canary(share: int) -> str:
        both = [
            {**one, "filters": version(one["name"])} for one in backends(("web-v1", 100 - share), ("web-v2", share))
        ]
        return http({"backendRefs": both})

    apply(lab, canary(0))
    with lab.start("shop/client", PYTHON, "-u", "-c", STEADY, str(REQUESTS), "/steady") as load:
        assert load.stdout is not None
        assert load.stdout.readline() == "begun\n"
        for share in (10, 50, 90, 100):
            apply(lab, canary(share))
        other = [{"path": {"value": "/other"}}]
        v2 = [{**backends(("web-v2", 1))[0], "filters": version("web-v2")}]
        apply(lab, http({"matches": other, "backendRefs": backends(("web-v1", 1))}, {"backendRefs": v2}))
        lab.delete(http())
        apply(lab, virtual_yaml(http=[{"route": [to("v1")]}]))
        apply(lab, virtual_yaml(http=[{"route": [to("v1", 50), to("v2", 50)]}]))
        said, failed = load.communicate(timeout=300)
    seen = {what: int(count) for count, _, what in (line.partition(" ") for line in said.splitlines())}
    assert {what.split()[0] for what in seen} == {"200"}, said + failed
    assert sum(seen.values()) == REQUESTS
    assert any("web-v1" in what for what in seen)
    lab.delete(virtual_yaml(http=[{"route": [to()]}]))
    ready(lab)


def test_a_session_stays_with_its_endpoint(lab: LabUnderTest) -> None:
    session = {"sessionName": "stays", "absoluteTimeout": "1h", "cookieConfig": {"lifetimeType": "Permanent"}}
    apply(lab, http({"backendRefs": backends(("web", 1)), "sessionPersistence": session}))
    answer = lab.exec("shop/client", "curl", "-si", WEB).stdout
    (cookie,) = [line.split(";")[0].partition(":")[2].strip() for line in answer.splitlines() if "stays=" in line]
    assert len(pods(lab, 8, "-b", cookie)) == 1
    assert len(pods(lab, 24)) > 1


def test_a_request_is_interrupted_or_tried_again_as_its_rule_says(lab: LabUnderTest) -> None:
    v1 = {"backendRefs": backends(("web-v1", 1))}
    again = [{"path": {"value": "/fail-once"}}]
    apply(lab, http({"timeouts": {"request": "500ms"}, **v1}, {"matches": again, "retry": {"codes": [503]}, **v1}))
    assert status(lab, "shop/client", url=f"{WEB}hang") == 504
    assert status(lab, "shop/client", url=f"{WEB}fail-once/c") == 200
    apply(lab, http({"retry": {"attempts": 0}, **v1}))
    assert status(lab, "shop/client", url=f"{WEB}fail-once/d") == 503


def test_a_browser_of_an_allowed_origin_is_let_in(lab: LabUnderTest) -> None:
    cors = {"type": "CORS", "cors": {"allowOrigins": ["https://*.example.com"], "allowMethods": ["PUT"]}}
    apply(lab, http({"filters": [cors], "backendRefs": backends(("web-v1", 1))}))

    def allowed(origin: str) -> bool:
        asked = ["-X", "OPTIONS", "-H", "access-control-request-method: PUT", "-H", f"origin: {origin}"]
        answer = lab.exec("shop/client", "curl", "-si", *asked, WEB).stdout.lower()
        return f"access-control-allow-origin: {origin}" in answer

    assert allowed("https://a.example.com")
    assert not allowed("https://example.org")


def test_a_star_beside_credentials_is_answered_with_what_was_asked_for(lab: LabUnderTest) -> None:
    every = {"allowMethods": ["*"], "allowHeaders": ["*"], "allowCredentials": True}
    cors = {"type": "CORS", "cors": {"allowOrigins": ["https://*.example.com"], **every}}
    apply(lab, http({"filters": [cors], "backendRefs": backends(("web-v1", 1))}))

    def answered(origin: str, *words: str) -> dict[str, str]:
        asked = ["-X", "OPTIONS", "-H", f"origin: {origin}", *words]
        lines = lab.exec("shop/client", "curl", "-si", *asked, WEB).stdout.lower().splitlines()
        pairs = (line.partition(": ") for line in lines)
        return {name: value for name, _, value in pairs if name.startswith("access-control-")}

    put = ("-H", "access-control-request-method: PUT")
    good = {
        "access-control-allow-origin": "https://a.example.com",
        "access-control-allow-credentials": "true",
        "access-control-allow-methods": "put",
        "access-control-max-age": "5",
    }
    assert answered("https://a.example.com", *put) == good
    named = answered("https://a.example.com", *put, "-H", "access-control-request-headers: x-a,x-b")
    assert named == {**good, "access-control-allow-headers": "x-a,x-b"}
    assert "access-control-allow-origin" not in answered("https://example.org", *put)
    lab.delete(http())
    ready(lab)


def test_a_method_of_grpc_has_its_own_backend(lab: LabUnderTest) -> None:
    method = [{"method": {"service": "shop.v1.Cart", "method": "Add"}}]
    red = [{"method": {"service": "shop.v1.Cart"}, "headers": [{"name": "x-team", "value": "red"}]}]
    grpc = route_yaml(
        "GRPCRoute",
        {"matches": method, "backendRefs": backends(("web-v2", 1))},
        {"matches": red, "backendRefs": backends(("web-v2", 1))},
        {"backendRefs": backends(("web-v1", 1))},
    )
    apply(lab, grpc)
    cart = f"{WEB}shop.v1.Cart/"
    assert echo(lab, "shop/client", "-X", "POST", url=f"{cart}Add")["pod"] == "web-v2"
    assert echo(lab, "shop/client", "-X", "POST", url=f"{cart}Get")["pod"] == "web-v1"
    assert echo(lab, "shop/client", "-X", "POST", "-H", "x-team: red", url=f"{cart}Get")["pod"] == "web-v2"
    lab.delete(grpc)
    ready(lab)


def test_connections_go_by_weight_and_by_the_name_that_tls_asks_for(lab: LabUnderTest) -> None:
    def stream(kind: str, name: str, **spec: Any) -> str:
        version = f"{GROUP}/v1alpha2" if kind == "TCPRoute" else f"{GROUP}/v1"
        refs = backends(("web-v1", int(name == "web-v1")), ("web-v2", int(name == "web-v2")), port=9001)
        return route_yaml(kind, {"backendRefs": refs}, version=version, **spec)

    apply(lab, stream("TCPRoute", "web-v1"))
    assert {named(lab, "web.shop") for _ in range(4)} == {"web-v1"}
    apply(lab, stream("TCPRoute", "web-v2"))
    assert {named(lab, "web.shop") for _ in range(4)} == {"web-v2"}
    apply(lab, stream("TLSRoute", "web-v1", hostnames=["a.example.com"]))
    asked = [named(lab, "web.shop", name) for name in ("a.example.com", "b.example.com", "")]
    assert asked == ["web-v1", "web-v2", "web-v2"]
    lab.delete(stream("TLSRoute", "web-v1") + stream("TCPRoute", "web-v1"))
    ready(lab)
