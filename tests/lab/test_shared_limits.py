"""A limit that a waypoint and a gateway count together, in Redis, and what becomes of requests when nobody counts.

Real Envoys, a real Redis, our service behind real ztunnels, real traffic.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from itertools import chain

import pytest

from ambient.kube.objects import HTTPRoute
from tests.support.gateway_lab import GATEWAY, POD, SCENE, guarded_yaml, ingress_yaml, to
from tests.support.lab import SLEEP, LabUnderTest, lab_under_test, namespace_yaml, object_yaml, pod_yaml, until
from tests.support.redis_server import program
from tests.support.tokens import Issuer
from tests.support.waypoint_lab import GATEWAY_VERSION, account_yaml, ready

HOST = "counter.limits.svc.cluster.local"
GUARDED = "http://guarded.shop/"
REDIS = pod_yaml(
    "limits/redis",
    [*program(), "--port", "6379", "--bind", "0.0.0.0", "--protected-mode", "no", "--save", "", "--dir", "/tmp"],
    node="n2",
    labels={"app": "redis"},
    readiness={"tcpSocket": {"port": 6379}, "periodSeconds": 1},
)
COUNTER = pod_yaml(
    "limits/counter",
    [sys.executable, "-m", "ambient.ratelimit"],
    node="n2",
    account="counter",
    labels={"app": "counter"},
    env=[{"name": "AMBIENT_REDIS", "value": "redis://redis.limits.svc.cluster.local:6379"}],
    readiness={"httpGet": {"path": "/ready", "port": 8080}, "periodSeconds": 1},
)
LIMITS = (
    namespace_yaml("limits", **{"istio.io/dataplane-mode": "ambient"})
    + object_yaml("v1", "ServiceAccount", "counter", "limits")
    + object_yaml("v1", "Service", "redis", "limits", spec={"selector": {"app": "redis"}, "ports": [{"port": 6379}]})
    + object_yaml(
        "v1",
        "Service",
        "counter",
        "limits",
        spec={"selector": {"app": "counter"}, "ports": [{"name": "grpc", "port": 8081}]},
    )
    + object_yaml("security.istio.io/v1", "PeerAuthentication", "strict", "limits", spec={"mtls": {"mode": "STRICT"}})
)
OURS = Issuer()
TOKENS = object_yaml(
    "security.istio.io/v1",
    "RequestAuthentication",
    "tokens",
    "shop",
    spec={
        "targetRefs": [{"group": "", "kind": "Service", "name": "guarded"}],
        "jwtRules": [{"issuer": OURS.name, "jwks": OURS.keys}],
    },
)
CLIENTS = account_yaml("other") + "".join(
    pod_yaml(f"shop/{name}", SLEEP, node="n1", account=name) for name in ("client", "other")
)


def route(limits: str) -> str:
    """Of the gateway, and of the service behind the waypoint; both lead to the one that is not."""
    parents = [{"name": "front"}, {"group": "", "kind": "Service", "name": "guarded"}]
    spec = {"parentRefs": parents, "rules": [to("web")]}
    notes = {"ambient.mesh/rate-limit": limits}
    return object_yaml(GATEWAY_VERSION, "HTTPRoute", "limited", "shop", annotations=notes, spec=spec)


@pytest.fixture(scope="module")
def lab() -> Iterator[LabUnderTest]:
    with lab_under_test("limit") as lab:
        scene = SCENE + ingress_yaml() + guarded_yaml() + TOKENS + CLIENTS + LIMITS + REDIS + COUNTER
        lab.up(scene, mesh=True, env={"control:AMBIENT_RATE_LIMIT_SERVICE": f"{HOST}:8081"})
        lab.wait_ready(timeout_s=100)
        yield lab


def limited(lab: LabUnderTest, limits: str, *, counted: bool = True) -> None:
    """With this limit and no other; `counted`: what has to be said of it."""
    lab.apply(route(limits))
    ready(lab)
    ready(lab, GATEWAY)
    until("it is said whether it is counted", lambda: said(lab)[:1] == ["True" if counted else "False"])


def said(lab: LabUnderTest) -> list[str]:
    record = lab.lab.records().find(HTTPRoute, "shop", "limited")
    found = [one for one in record.conditions if one.type == "ambient.mesh/LimitsCounted"] if record else []
    return [found[0].status, found[0].reason, found[0].message] if found else []


def _ask(lab: LabUnderTest, pod: str, url: str, times: int, *words: str) -> list[int]:
    """The statuses of so many requests, one after the other."""
    every = ("-s", "-m", "20", "-w", "%{http_code} ", *words, *(("-o", "/dev/null", url) * times))
    return [int(one) for one in lab.exec(pod, "curl", *every).stdout.split()]


def ask(lab: LabUnderTest, times: int = 1, pod: str = "shop/client", *words: str) -> list[int]:
    """By way of the waypoint."""
    return _ask(lab, pod, GUARDED, times, *words)


def team(lab: LabUnderTest, name: str, times: int = 1, pod: str = "shop/client") -> list[int]:
    """With the header x-team."""
    return ask(lab, times, pod, "-H", f"x-team: {name}")


def bearer(lab: LabUnderTest, subject: str, times: int = 1) -> list[int]:
    """With a token of this subject."""
    return ask(lab, times, "shop/client", "-H", f"authorization: Bearer {OURS.token(sub=subject)}")


def outside(lab: LabUnderTest, times: int = 1) -> list[int]:
    """By way of the gateway."""
    return _ask(lab, "outside/client", f"http://{lab.ip(POD)}/", times)


def until_over(*ways: Callable[[], list[int]]) -> list[int]:
    """All answers, until every way is refused."""
    heard: list[int] = []

    def refused() -> bool:
        found = [way() for way in ways]
        heard.extend(chain(*found))
        return all(set(one) == {429} for one in found)

    until("the limit is reached", refused)
    assert set(heard) <= {200, 429, 503}
    return heard


def passed(heard: list[int], limit: int) -> bool:
    """As many as the limit says. On a busy machine an answer may come too late: then the request, which may be counted
    or not, is refused (503), because these limits end in deny."""
    return heard.count(200) <= limit <= heard.count(200) + heard.count(503)


def test_a_waypoint_and_a_gateway_count_one_limit_together(lab: LabUnderTest) -> None:
    limited(lab, "global 6/d deny")
    heard = until_over(lambda: outside(lab, 2), lambda: ask(lab, 2))
    assert passed(heard, 6), heard

    def told() -> bool:
        found = lab.exec("shop/client", "curl", "-s", "-m", "10", "-D", "-", "-o", "/dev/null", GUARDED).stdout.lower()
        said = ("x-ratelimit-limit: 6, 6;w=86400", "x-ratelimit-remaining: 0", "x-ratelimit-reset: ")
        return all(one in found for one in said)

    until("answers tell of it", told)


def test_a_client_that_is_over_its_limit_takes_nothing_from_another(lab: LabUnderTest) -> None:
    limited(lab, "global client 3/d deny, global 5/d deny")
    one = until_over(lambda: ask(lab, 5))
    assert passed(one, 3), one
    other = until_over(lambda: ask(lab, 3, "shop/other"))
    assert passed(one + other, 5), (one, other)
    # Who has no identity shares the limit for all alone.
    assert 200 not in until_over(lambda: outside(lab))


def test_each_value_of_a_header_has_a_count_and_what_is_odd_or_missing_has_one_together(lab: LabUnderTest) -> None:
    limited(lab, "global header x-team 4/d deny")
    for name in ("red", "blue"):
        heard = until_over(lambda name=name: team(lab, name, 3))  # type: ignore[misc]
        assert passed(heard, 4), (name, heard)
    # By whichever proxy it comes, and whoever asks.
    assert 200 not in until_over(lambda: team(lab, "red", 1, "shop/other"))
    assert passed(heard := until_over(lambda: ask(lab, 3), lambda: outside(lab, 3)), 4), heard
    # Nobody gets more by values that are too long, or that are no text: they are counted together.
    odd = ("r" * 3000, "b" * 5000, "\udcff", "\udcfe")
    assert passed(heard := until_over(*(lambda name=name: team(lab, name) for name in odd)), 4), heard  # type: ignore[misc]


def test_each_value_of_a_claim_has_a_count_and_only_of_tokens_that_are_accepted(lab: LabUnderTest) -> None:
    limited(lab, "global claim sub 5/d deny")
    forged = Issuer().token(sub="joe")
    assert ask(lab, 9, "shop/client", "-H", f"authorization: Bearer {forged}") == [401] * 9
    for name in ("joe", "eve"):
        heard = until_over(lambda name=name: bearer(lab, name, 3))  # type: ignore[misc]
        assert passed(heard, 5), (name, heard)
    assert passed(heard := until_over(lambda: ask(lab, 3)), 5), heard


def test_a_proxy_counts_values_of_headers_and_claims_by_itself_too(lab: LabUnderTest) -> None:
    def by_itself(limits: str) -> None:
        lab.apply(route(limits))
        ready(lab)
        ready(lab, GATEWAY)

    by_itself("header x-team 2/d")
    for name in ("red", "blue"):
        assert team(lab, name, 3) == [200, 200, 429]
    assert ask(lab, 3) == [200, 200, 429]
    by_itself("claim sub 3/d, client 50/d")
    for name in ("joe", "eve"):
        assert bearer(lab, name, 4) == [200, 200, 200, 429]
    assert ask(lab, 4) == [200, 200, 200, 429]


@pytest.mark.parametrize(("chosen", "then"), [("allow", 200), ("deny", 503)])
def test_with_redis_gone_or_silent_the_owner_has_chosen_what_becomes_of_requests(
    lab: LabUnderTest, chosen: str, then: int
) -> None:
    limited(lab, f"global 100{1 if chosen == 'deny' else 2}/d {chosen}")
    until("requests pass", lambda: ask(lab) + outside(lab) == [200, 200])
    assert lab.exec("limits/redis", "redis-cli", "client", "pause", "3600000", "ALL").returncode == 0
    assert ask(lab, 2) + outside(lab, 2) == [then] * 4
    until("it is said", lambda: said(lab)[:2] == ["False", "NotReady"])
    assert "uncounted" in said(lab)[2] if chosen == "allow" else "refused" in said(lab)[2]
    lab.delete(REDIS)
    assert ask(lab, 2) + outside(lab, 2) == [then] * 4
    lab.apply(REDIS)
    until("it is counted again", lambda: said(lab)[:1] == ["True"])
    until("requests pass", lambda: ask(lab) + outside(lab) == [200, 200])


def test_with_the_service_gone_it_is_the_same_and_the_proxies_count_it(lab: LabUnderTest) -> None:
    lab.delete(COUNTER)
    # Who comes from outside has no identity, and so is not asked about for the limit of each client.
    limited(lab, "global client 2/d deny", counted=False)
    assert (outside(lab, 3), ask(lab, 2)) == ([200] * 3, [503] * 2)
    limited(lab, "global 2/d, global client 9/d", counted=False)
    assert outside(lab, 3) + ask(lab, 3) == [200] * 6
    words = ("curl", "-s", "-m", "20", f"http://{lab.ip('shop/waypoint')}:15020/stats/prometheus")

    def passed_uncounted() -> list[str]:
        told = lab.exec("shop/waypoint", *words).stdout.splitlines()
        return [one for one in told if "ratelimit_lax_failure_mode_allowed" in one and not one.endswith(" 0")]

    until("the proxies count it", passed_uncounted)
    lab.apply(COUNTER)
    until("it is counted again", lambda: said(lab)[:1] == ["True"])
    until("no more than so many pass", lambda: ask(lab) + outside(lab) == [429, 429])
