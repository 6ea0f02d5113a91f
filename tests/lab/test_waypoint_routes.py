"""HTTPRoutes at a waypoint: real Envoy and ztunnels, real requests; whatever a route does, a refusal stays one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ambient.kube.objects import HTTPRoute
from tests.support.lab import LabUnderTest, object_yaml, until
from tests.support.waypoint_lab import (
    GATEWAY_VERSION,
    WEB,
    apply,
    echo,
    policy_yaml,
    ready,
    server_yaml,
    service_yaml,
    status,
    waypoint_lab,
)

HTTP = {"name": "http", "port": 80, "targetPort": 8080}
VERSIONS = "".join(
    server_yaml(f"web-{one}", version=one) + service_yaml(f"web-{one}", HTTP, app="web", version=one)
    for one in ("v1", "v2")
)
DENIED = policy_yaml("no-admin", "DENY", {"to": [{"operation": {"paths": ["/admin/*"]}}]})


@pytest.fixture(scope="module")
def lab() -> Iterator[LabUnderTest]:
    with waypoint_lab(VERSIONS) as lab:
        lab.wait_ready("shop/web-v1", "shop/web-v2")
        yield lab


def route(lab: LabUnderTest, *rules: dict[str, Any]) -> None:
    """Put it in the place of the one before, and wait until the waypoint has it."""
    parent = {"group": "", "kind": "Service", "name": "web"}
    apply(lab, object_yaml(GATEWAY_VERSION, "HTTPRoute", "web", "shop", spec={"parentRefs": [parent], "rules": rules}))


def to(*weights: tuple[str, int]) -> list[dict[str, Any]]:
    return [{"name": name, "port": 80, "weight": weight} for name, weight in weights]


def told(lab: LabUnderTest, pod: str = "shop/client", url: str = WEB) -> tuple[int, str]:
    """Status and location of an answer."""
    done = lab.exec(pod, "curl", "-s", "-m", "20", "-o", "/dev/null", "-w", "%{http_code} %{redirect_url}", url)
    code, _, where = done.stdout.partition(" ")
    return int(code or 0), where


def test_weights_decide_who_answers_and_a_header_overrides_them(lab: LabUnderTest) -> None:
    def canary(old: int, new: int) -> list[dict[str, Any]]:
        red = [{"headers": [{"name": "x-team", "value": "red"}]}]
        return [
            {"backendRefs": to(("web-v1", old), ("web-v2", new))},
            {"matches": red, "backendRefs": to(("web-v2", 1))},
        ]

    route(lab, *canary(100, 0))
    assert {echo(lab, "shop/client")["pod"] for _ in range(5)} == {"web-v1"}
    assert echo(lab, "shop/client", "-H", "x-team: red")["pod"] == "web-v2"
    route(lab, *canary(0, 100))
    assert {echo(lab, "shop/client")["pod"] for _ in range(5)} == {"web-v2"}


def test_requests_are_rewritten_redirected_or_find_nothing(lab: LabUnderTest) -> None:
    prefix = [{"path": {"type": "PathPrefix", "value": "/old"}}]
    exact = [{"path": {"type": "Exact", "value": "/moved"}}]
    path = {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/new"}
    headers = {"set": [{"name": "x-by", "value": "50%"}], "remove": ["x-secret"]}
    filters = [
        {"type": "URLRewrite", "urlRewrite": {"hostname": "inner.example.com", "path": path}},
        {"type": "RequestHeaderModifier", "requestHeaderModifier": headers},
    ]
    moved = {"scheme": "https", "hostname": "x.example.com", "statusCode": 301}
    route(
        lab,
        {"matches": prefix, "filters": filters, "backendRefs": to(("web-v1", 1))},
        {"matches": exact, "filters": [{"type": "RequestRedirect", "requestRedirect": moved}]},
        {"matches": [{"path": {"value": "/gone"}}], "backendRefs": to(("absent", 1))},
    )
    heard = echo(lab, "shop/client", "-H", "x-secret: 1", url=WEB + "old/a?b=c")
    assert (heard["path"], heard["headers"]["host"]) == ("/new/a?b=c", "inner.example.com")
    assert (heard["headers"]["x-by"], "x-secret" in heard["headers"]) == ("50%", False)
    assert told(lab, url=WEB + "moved") == (301, "https://x.example.com/moved")
    assert [status(lab, "shop/client", url=WEB + path) for path in ("older", "gone")] == [404, 500]

    def said() -> dict[str, tuple[str, str]]:
        found = lab.lab.records().find(HTTPRoute, "shop", "web")
        return {one.type: (one.status, one.reason) for one in found.conditions} if found is not None else {}

    wanted = {"Accepted": ("True", "Accepted"), "ResolvedRefs": ("False", "BackendNotFound")}
    until("conditions of the route", lambda: said() == wanted)


def test_what_a_policy_refuses_stays_refused_whatever_the_route(lab: LabUnderTest) -> None:
    admin = [{"path": {"type": "PathPrefix", "value": "/admin"}}]
    away = {"type": "URLRewrite", "urlRewrite": {"path": {"type": "ReplaceFullPath", "replaceFullPath": "/free"}}}
    moved = {"type": "RequestRedirect", "requestRedirect": {"hostname": "x.example.com"}}
    rules: list[dict[str, Any]] = [
        {"matches": admin, "backendRefs": to(("web-v1", 1))},
        {"matches": admin, "filters": [away], "backendRefs": to(("web-v1", 1))},
        {"matches": admin, "filters": [moved]},
    ]
    for rule in rules:
        route(lab, rule)
        assert status(lab, "shop/client", url=WEB + "admin/x") in (200, 302)
        apply(lab, DENIED)
        assert told(lab, url=WEB + "admin/x") == (403, "")
        assert status(lab, "shop/client", url=WEB + "admin") in (200, 302)
        lab.delete(DENIED)
        ready(lab)


def test_a_route_is_no_way_past_the_policies_of_where_it_leads(lab: LabUnderTest) -> None:
    own = policy_yaml("mine", "DENY", {"to": [{"operation": {"methods": ["GET"]}}]}, service="web-v2")
    route(lab, {"backendRefs": to(("web-v2", 1))})
    assert status(lab, "shop/client") == 200
    apply(lab, own)
    assert status(lab, "shop/client", url="http://web-v2.shop/") == 403
    assert status(lab, "shop/client") == 500
    lab.delete(own)
    ready(lab)
    assert status(lab, "shop/client") == 200
