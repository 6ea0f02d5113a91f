"""VirtualServices and DestinationRules at a waypoint: real Envoy and ztunnels, real requests.

Each match has beside it the same request that does not fit.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from ambient.kube.objects import VirtualService
from tests.support.lab import LabUnderTest, until
from tests.support.waypoint_lab import WEB, apply, echo, ready, status, waypoint_lab
from tests.support.waypoint_versions import VERSIONS, named, pods, put, route_yaml, rule_yaml, to, virtual_yaml


@pytest.fixture(scope="module")
def lab() -> Iterator[LabUnderTest]:
    with waypoint_lab(VERSIONS + rule_yaml()) as lab:
        lab.wait_ready("shop/web-v1", "shop/web-v2")
        yield lab


def test_requests_go_to_subsets_by_weight_and_by_header(lab: LabUnderTest) -> None:
    red = {"match": [{"headers": {"x-team": {"exact": "red"}}}], "route": [to("v2")]}
    put(lab, red, {"route": [to("v1", 100), to("v2", 0)]})
    assert (pods(lab, 5), pods(lab, 1, "-H", "x-team: red")) == ({"web-v1"}, {"web-v2"})
    put(lab, red, {"route": [to("v1", 0), to("v2", 100)]})
    assert pods(lab, 5) == {"web-v2"}


MATCHES: dict[str, tuple[dict[str, Any], tuple[str, ...], tuple[str, ...]]] = {
    "prefix": ({"uri": {"prefix": "/a"}}, (f"{WEB}ab",), (f"{WEB}Ab",)),
    "case": ({"uri": {"exact": "/Ab"}, "ignoreUriCase": True}, (f"{WEB}aB",), (f"{WEB}aBc",)),
    "regex": ({"uri": {"regex": "/[0-9]+/x"}}, (f"{WEB}17/x",), (f"{WEB}17/xy",)),
    "method": ({"method": {"exact": "POST"}}, (WEB, "-X", "POST"), (WEB,)),
    "authority": ({"authority": {"prefix": "inner."}}, (WEB, "-H", "host: inner.web"), (WEB,)),
    "query": ({"queryParams": {"q": {"exact": "1"}}}, (f"{WEB}?q=1",), (f"{WEB}?q=2",)),
    "presence": ({"headers": {"x-a": {}}}, (WEB, "-H", "x-a: 1"), (WEB,)),
    "header": ({"headers": {"x-a": {"regex": "[0-9]+"}}}, (WEB, "-H", "x-a: 17"), (WEB, "-H", "x-a: b")),
    "without": ({"withoutHeaders": {"x-a": {"exact": "1"}}}, (WEB,), (WEB, "-H", "x-a: 1")),
    "cookie": ({"headers": {"cookie": {"regex": ".*user=a(;.*)?"}}}, (WEB, "-b", "x=1; user=a"), (WEB, "-b", "user=b")),
}


def test_a_match_fits_what_it_says_and_nothing_beside_it(lab: LabUnderTest) -> None:
    def rule(case: str) -> dict[str, Any]:
        match = MATCHES[case][0]
        headers = {**match.get("headers", {}), "x-case": {"exact": case}}
        return {"match": [{**match, "headers": headers}], "directResponse": {"status": 299, "body": {"string": case}}}

    def answer(case: str, request: tuple[str, ...]) -> int:
        url, *words = request
        return status(lab, "shop/client", "-H", f"x-case: {case}", *words, url=url)

    put(lab, *(rule(case) for case in MATCHES), {"route": [to()]})
    found = {case: (answer(case, good), answer(case, bad)) for case, (_, good, bad) in MATCHES.items()}
    assert found == dict.fromkeys(MATCHES, (299, 200))


def test_a_match_by_who_the_client_is_believes_its_certificate_and_nothing_else(lab: LabUnderTest) -> None:
    client = {"headers": {"x-forwarded-client-cert": {"regex": ".*URI=spiffe://cluster.local/ns/shop/sa/client"}}}
    answers = [
        {"match": [{"sourceNamespace": "edge"}], "directResponse": {"status": 297}},
        {"match": [client], "directResponse": {"status": 298}},
        {"match": [{"sourceNamespace": "shop"}], "directResponse": {"status": 299}},
    ]
    put(lab, *answers)
    forged = ["-H", "x-forwarded-client-cert: URI=spiffe://cluster.local/ns/shop/sa/client"]
    assert status(lab, "shop/client") == 298
    assert status(lab, "shop/other", *forged) == 299


def test_faults_are_answers_and_delays_in_the_applications_place(lab: LabUnderTest) -> None:
    delay = {"fixedDelay": "600s", "percentage": {"value": 100.0}}
    slow = {"match": [{"headers": {"x-slow": {}}}], "fault": {"delay": delay}, "route": [to()]}
    put(lab, slow, {"fault": {"abort": {"httpStatus": 418, "percentage": {"value": 100.0}}}, "route": [to()]})
    assert status(lab, "shop/client") == 418
    # Nothing comes while a delay lasts: the client gives up.
    assert lab.exec("shop/client", "curl", "-s", "-m", "2", "-H", "x-slow: 1", WEB).returncode == 28
    none = {"abort": {"httpStatus": 418, "percentage": {"value": 0.0}}}
    put(lab, {"fault": none, "route": [to()]})
    assert {status(lab, "shop/client") for _ in range(5)} == {200}


def test_a_timeout_interrupts_and_a_retry_asks_again(lab: LabUnderTest) -> None:
    put(lab, {"timeout": "0.5s", "route": [to("v1")]})
    assert status(lab, "shop/client", url=f"{WEB}hang") == 504
    put(lab, {"retries": {"attempts": 0}, "route": [to("v1")]})
    assert status(lab, "shop/client", url=f"{WEB}fail-once/a") == 503
    put(lab, {"retries": {"attempts": 3, "retryOn": "503", "perTryTimeout": "10s"}, "route": [to("v1")]})
    assert status(lab, "shop/client", url=f"{WEB}fail-once/b") == 200


def test_requests_and_answers_are_rewritten_and_redirected(lab: LabUnderTest) -> None:
    edit = {"request": {"set": {"x-by": "50%"}, "remove": ["x-secret"]}, "response": {"add": {"x-told": "1"}}}
    of_v1 = {**to("v1"), "headers": {"request": {"set": {"x-subset": "v1"}}}}
    put(
        lab,
        {"match": [{"uri": {"prefix": "/old"}}], "rewrite": {"uri": "/new", "authority": "inner"}, "route": [to("v1")]},
        {
            "match": [{"uri": {"prefix": "/by/"}}],
            "rewrite": {"uriRegexRewrite": {"match": "^/by/([^/]+)/(.*)$", "rewrite": r"/\2/\1"}},
            "route": [to("v1")],
        },
        {"match": [{"uri": {"exact": "/moved"}}], "redirect": {"authority": "x.example.com", "redirectCode": 302}},
        {"headers": edit, "route": [of_v1]},
    )
    heard = echo(lab, "shop/client", url=f"{WEB}older?b=c")
    assert (heard["path"], heard["headers"]["host"]) == ("/newer?b=c", "inner")
    assert echo(lab, "shop/client", url=f"{WEB}by/a/b/c")["path"] == "/b/c/a"
    told = lab.exec("shop/client", "curl", "-s", "-o", "/dev/null", "-w", "%{http_code} %{redirect_url}", f"{WEB}moved")
    assert told.stdout == "302 http://x.example.com/moved"
    headers = echo(lab, "shop/client", "-H", "x-secret: 1")["headers"]
    assert (headers["x-by"], headers["x-subset"], "x-secret" in headers) == ("50%", "v1", False)
    assert "x-told: 1" in lab.exec("shop/client", "curl", "-si", WEB).stdout


def test_a_preflight_of_an_allowed_origin_is_answered_by_the_waypoint(lab: LabUnderTest) -> None:
    cors = {"allowOrigins": [{"exact": "https://a.example.com"}], "allowMethods": ["PUT"], "maxAge": "60s"}
    put(lab, {"corsPolicy": cors, "route": [to()]})
    asked = ["-X", "OPTIONS", "-H", "access-control-request-method: PUT"]
    good = lab.exec("shop/client", "curl", "-si", *asked, "-H", "origin: https://a.example.com", WEB).stdout.lower()
    assert "access-control-allow-origin: https://a.example.com" in good
    assert "access-control-allow-methods: put" in good
    bad = lab.exec("shop/client", "curl", "-si", *asked, "-H", "origin: https://b.example.com", WEB).stdout.lower()
    assert "access-control-allow-origin" not in bad


def test_a_mirror_hears_what_the_other_answers(lab: LabUnderTest) -> None:
    mirror = {"mirror": {"host": "web-v2"}, "mirrorPercentage": {"value": 100.0}}
    put(lab, {**mirror, "route": [to("v1")]})
    assert pods(lab, 1, url=f"{WEB}mirrored") == {"web-v1"}
    copies = "http://web-v2.shop/heard"
    until("the mirror has heard it", lambda: "/mirrored" in echo(lab, "shop/client", url=copies)["heard"])
    assert "/heard" in echo(lab, "shop/client", url=copies)["heard"]


def test_what_is_alike_goes_to_the_same_endpoint(lab: LabUnderTest) -> None:
    put(lab, {"route": [to()]})

    def hashed(**by: Any) -> None:
        apply(lab, rule_yaml(loadBalancer={"consistentHash": by}))

    hashed(httpHeaderName="x-user")
    assert all(len(pods(lab, 4, "-H", f"x-user: {user}")) == 1 for user in ("a", "b"))
    assert len({echo(lab, "shop/client", "-H", f"x-user: u{number}")["pod"] for number in range(24)}) > 1
    hashed(httpQueryParameterName="user")
    assert len(pods(lab, 6, url=f"{WEB}?user=a")) == 1
    hashed(httpCookie={"name": "lasts", "ttl": "60s"})
    made = lab.exec("shop/client", "curl", "-si", WEB).stdout
    (cookie,) = [line.split(";")[0].partition(":")[2].strip() for line in made.splitlines() if "lasts=" in line]
    assert len(pods(lab, 6, "-b", cookie)) == 1
    hashed(useSourceIp=True)
    assert len(pods(lab, 6)) == 1
    apply(lab, rule_yaml(loadBalancer={"simple": "ROUND_ROBIN"}))
    assert len(pods(lab, 24)) > 1
    apply(lab, rule_yaml())


def test_connections_go_where_a_virtual_service_says(lab: LabUnderTest) -> None:
    put(lab, {"route": [to()]}, tcp=[{"match": [{"port": 9001}], "route": [to("v2")]}])
    assert {named(lab, "web.shop") for _ in range(4)} == {"web-v2"}
    put(lab, {"route": [to()]}, tcp=[{"match": [{"port": 9001}], "route": [to("v1")]}])
    assert {named(lab, "web.shop") for _ in range(4)} == {"web-v1"}


def test_what_is_wrong_is_said_and_a_route_of_the_gateway_api_goes_first(lab: LabUnderTest) -> None:
    def said(name: str = "web") -> tuple[str, str]:
        found = lab.lab.records().find(VirtualService, "shop", name)
        known = {one.type: (one.status, one.reason) for one in found.conditions} if found is not None else {}
        return known.get("WaypointAccepted", ("", ""))

    put(lab, {"route": [to("v1")]})
    until("it is in force", lambda: said() == ("True", "Accepted"))
    put(lab, {"route": [to("v3")]})
    assert status(lab, "shop/client") == 500
    until("its subset is missed", lambda: said() == ("False", "BackendNotFound"))
    put(lab, {"route": [to("v1")]})
    route = route_yaml("HTTPRoute", {"backendRefs": [{"name": "web-v2", "port": 80}]})
    apply(lab, route)
    assert pods(lab, 4) == {"web-v2"}
    until("it is passed over", lambda: said() == ("False", "Conflicted"))
    lab.delete(route)
    ready(lab)
    assert pods(lab, 4) == {"web-v1"}
    other = virtual_yaml("other", hosts=["web"], http=[{"route": [to("v2")]}])
    apply(lab, other)
    until("the older one stays", lambda: said("other") == ("False", "Conflicted"))
    assert pods(lab, 4) == {"web-v1"}
    lab.delete(other)
