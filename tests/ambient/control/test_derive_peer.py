"""PeerAuthentication -> policies against plaintext: which mode a pod has, and what that refuses."""

from __future__ import annotations

from typing import Any

import pytest

from ambient.errors import InvalidInput
from ambient.kube.objects import Records, RefusedObject
from ambient.model.decide import judge_naive
from ambient.model.outcome import Allowed
from ambient.model.policy import Action, Match, PolicyScope
from tests.support.builders import connection, pod, raw, records, strings
from tests.support.chosen import Chosen

ROOT = "istio-system"
STATIC = "istio-system/istio_converted_static_strict"
OWN = "default/converted_peer_authentication_"
PLAINTEXT = (Match(not_principals=strings("*")),)


def peer(
    name: str, mode: str = "", *, ports: dict[str, str] | None = None, app: str = "", **metadata: Any
) -> dict[str, Any]:
    spec: dict[str, Any] = {"mtls": {"mode": mode}} if mode else {}
    if app:
        spec["selector"] = {"matchLabels": {"app": app}}
    if ports:
        spec["portLevelMtls"] = {port: {"mode": value} for port, value in ports.items()}
    return raw("PeerAuthentication", name, spec, **metadata)


WEB = pod("web", labels={"app": "web"})


@pytest.mark.parametrize(
    ("objects", "expected"),
    [
        ([], ()),
        ([peer("a", "PERMISSIVE")], ()),
        ([peer("a", "DISABLE")], ()),
        ([peer("a")], ()),
        ([peer("a", "STRICT")], (STATIC,)),
        ([peer("a", "STRICT", namespace="other")], ()),
        ([peer("a", "STRICT", namespace=ROOT)], (STATIC,)),
        ([peer("a", "STRICT", namespace=ROOT), peer("b", "PERMISSIVE")], ()),
        ([peer("a", "STRICT", namespace=ROOT), peer("b", "UNSET")], (STATIC,)),
        ([peer("a", "STRICT", namespace=ROOT), peer("b")], (STATIC,)),
        ([peer("a", "PERMISSIVE", namespace=ROOT), peer("b", "STRICT")], (STATIC,)),
        ([peer("a", "STRICT", app="web")], (STATIC,)),
        ([peer("a", "STRICT", app="other")], ()),
        ([peer("a", "STRICT", app="web", namespace="other")], ()),
        ([peer("a", "STRICT", app="web", namespace=ROOT)], ()),
        ([peer("a", "STRICT"), peer("b", "PERMISSIVE", app="web")], ()),
        ([peer("a", "STRICT"), peer("b", "DISABLE", app="web")], ()),
        ([peer("a", "STRICT"), peer("b", "UNSET", app="web")], (STATIC,)),
        ([peer("a", "STRICT", namespace=ROOT), peer("b", "UNSET", app="web")], (STATIC,)),
        ([peer("a", "PERMISSIVE"), peer("b", "STRICT", app="web")], (STATIC,)),
        ([peer("a", "STRICT", app="web", ports={"80": "STRICT"})], (STATIC,)),
        ([peer("a", "STRICT", app="web", ports={"80": "UNSET"})], (STATIC,)),
        ([peer("a", "STRICT", app="web", ports={"80": "PERMISSIVE"})], (OWN + "a",)),
        ([peer("a", "STRICT", app="web", ports={"80": "DISABLE"})], (OWN + "a",)),
        ([peer("a", "PERMISSIVE", app="web", ports={"80": "STRICT"})], (OWN + "a",)),
        ([peer("a", "PERMISSIVE", app="web", ports={"80": "DISABLE"})], ()),
        ([peer("a", app="web", ports={"80": "STRICT"})], (OWN + "a",)),
        ([peer("a", "STRICT"), peer("b", app="web", ports={"80": "PERMISSIVE"})], (OWN + "b",)),
        ([peer("a", "STRICT"), peer("b", app="web", ports={"80": "STRICT"})], (STATIC,)),
    ],
)
def test_the_mode_of_a_pod(objects: list[dict[str, Any]], expected: tuple[str, ...]) -> None:
    modes = Chosen(records(*objects))
    assert modes.selecting(WEB) == expected
    assert set(expected) <= set(modes.policies)
    assert (STATIC in modes.policies) is bool(objects)


OLD, NEW = "2026-01-01T00:00:00Z", "2026-01-02T00:00:00Z"


@pytest.mark.parametrize(
    ("objects", "expected"),
    [
        ([peer("b", "STRICT", creationTimestamp=OLD), peer("a", "PERMISSIVE", creationTimestamp=NEW)], (STATIC,)),
        ([peer("b", "PERMISSIVE", creationTimestamp=OLD), peer("a", "STRICT", creationTimestamp=NEW)], ()),
        ([peer("b", "PERMISSIVE", creationTimestamp=OLD), peer("a", "STRICT", creationTimestamp=OLD)], (STATIC,)),
        ([peer("b", "STRICT", creationTimestamp=OLD), peer("a", "PERMISSIVE")], (STATIC,)),
        (
            [
                peer("b", "STRICT", app="web", creationTimestamp=OLD),
                peer("a", "PERMISSIVE", app="web", creationTimestamp=NEW),
            ],
            (STATIC,),
        ),
    ],
)
def test_the_oldest_of_a_level_wins_then_the_first_by_name(
    objects: list[dict[str, Any]], expected: tuple[str, ...]
) -> None:
    assert Chosen(records(*objects)).selecting(WEB) == expected


def test_the_shared_policy_has_istios_form() -> None:
    policy = Chosen(records(peer("a"))).policies[STATIC]
    assert (policy.scope, policy.action, policy.rules) == (
        PolicyScope.WORKLOAD_SELECTOR,
        Action.DENY,
        ((PLAINTEXT,),),
    )


def test_exempt_ports_of_a_strict_policy_are_clauses_of_one_rule() -> None:
    modes = Chosen(records(peer("a", "STRICT", app="web", ports={"9999": "PERMISSIVE", "80": "DISABLE"})))
    assert modes.policies[OWN + "a"].rules == (
        (PLAINTEXT, (Match(not_destination_ports=(80,)),), (Match(not_destination_ports=(9999,)),)),
    )


def test_strict_ports_of_a_permissive_policy_are_rules() -> None:
    modes = Chosen(records(peer("a", "PERMISSIVE", app="web", ports={"80": "STRICT", "81": "STRICT"})))
    assert modes.policies[OWN + "a"].rules == tuple(
        ((Match(not_principals=strings("*"), destination_ports=(port,)),),) for port in (80, 81)
    )


@pytest.mark.parametrize(
    ("mode", "ports", "open_ports"),
    [
        ("STRICT", {}, []),
        ("STRICT", {"80": "PERMISSIVE"}, [80]),
        ("STRICT", {"80": "DISABLE", "81": "PERMISSIVE", "82": "STRICT"}, [80, 81]),
        ("PERMISSIVE", {"80": "STRICT"}, [81, 82]),
        ("DISABLE", {"80": "STRICT", "81": "STRICT"}, [82]),
        ("PERMISSIVE", {}, [80, 81, 82]),
    ],
)
def test_plaintext_reaches_exactly_the_open_ports_and_mtls_all(
    mode: str, ports: dict[str, str], open_ports: list[int]
) -> None:
    modes = Chosen(records(peer("a", mode, app="web", ports=ports)))
    policies = [modes.policies[key] for key in modes.selecting(WEB)]

    def reached(who: str | None) -> list[int]:
        return [
            port
            for port in (80, 81, 82)
            if isinstance(judge_naive(policies, (), connection(destination=f"10.0.0.1:{port}", peer=who)), Allowed)
        ]

    assert reached(None) == open_ports
    assert reached("shop/till") == [80, 81, 82]


def refused(raw_object: dict[str, Any], *, namespace: str = "default", stands: bool = False) -> Records:
    error = InvalidInput("x", "spec", "is wrong")
    return Records(refused=(RefusedObject("PeerAuthentication", namespace, "p", error, raw_object, stands),))


@pytest.mark.parametrize("raw_object", [{}, {"spec": "x"}, {"spec": {"mtls": {"mode": "STRIKT"}}}])
def test_an_invalid_one_without_a_good_version_counts_as_strict(raw_object: dict[str, Any]) -> None:
    assert Chosen(refused(raw_object)).selecting(WEB) == (STATIC,)
    assert Chosen(refused(raw_object, namespace=ROOT)).selecting(WEB) == (STATIC,)
    assert Chosen(refused(raw_object, namespace="other")).selecting(WEB) == ()
    assert Chosen(refused(raw_object, stands=True)).selecting(WEB) == ()


def test_an_invalid_one_closes_only_what_it_selects() -> None:
    modes = Chosen(refused({"spec": {"selector": {"matchLabels": {"app": "web"}}, "mtls": 1}}))
    assert modes.selecting(WEB) == (STATIC,)
    assert modes.selecting(pod("other")) == ()
