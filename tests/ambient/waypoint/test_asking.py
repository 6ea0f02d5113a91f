"""CUSTOM policies: who is asked about what, and that nothing passes unasked that has to be asked for."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ambient.kube.mesh_config import Provider
from ambient.kube.policies import Operation, PolicyRule, Source
from ambient.waypoint.asking import ask_filters, match_filter, without_answers
from ambient.waypoint.front import Front, FrontPort, Policy, Protocol
from ambient.waypoint.rbac import http_filters, is_layer_4, tunnel_filters
from ambient.waypoint.resources import resources
from ambient.waypoint.typed import CLUSTER_TYPE, LISTENER_TYPE
from tests.support.envoy_rbac import Request, allowed
from tests.support.waypoint_views import TUNNEL, front, view

ME = Provider(name="me", kind="grpc", hostname="authz.shop", port=9000)
WEB = Provider(name="web", kind="http", hostname="authz.shop", port=8000, upstream=("X-User", "x-team", "cookie"))
ADMIN = PolicyRule(operations=(Operation(paths=("/admin",)),))
PEER = "spiffe://cluster.local/ns/shop/sa/client"


def custom(provider: str, *rules: PolicyRule, dry_run: bool = False) -> Policy:
    return Policy("shop", "ask", "CUSTOM", rules, dry_run, provider)


def behind(*policies: Policy, providers: tuple[Provider, ...] = (ME,)) -> Front:
    return replace(front(*policies), providers=providers)


def filters(told: Front) -> dict[str, Any]:
    return http_filters(view(told), told, told.ports[0])


def passes(told: Front, path: str, *noted: str) -> bool:
    enforced = {name: one for name, one in filters(told).items() if "rules" in one["rbac"]}
    return allowed(enforced, Request(PEER, path=path, noted=frozenset(noted)))


def test_what_matches_passes_only_when_it_was_asked_for() -> None:
    told = behind(custom("me", ADMIN))
    assert passes(told, "/admin", "me")
    assert not passes(told, "/admin")
    assert passes(told, "/other")


def test_who_is_asked_is_found_out_by_the_same_rules() -> None:
    found = filters(behind(custom("me", ADMIN)))[match_filter(ME)]["rbac"]
    assert found["shadow_rules"]["action"] == "DENY"
    assert found["shadow_rules_stat_prefix"] == "custom_me_"
    for path, hit in (("/admin", True), ("/other", False)):
        assert allowed({"x": {"rbac": {"rules": found["shadow_rules"]}}}, Request(PEER, path=path)) is not hit


def test_a_policy_whose_provider_is_not_known_refuses_what_it_matches() -> None:
    told = behind(custom("nobody", ADMIN))
    assert (passes(told, "/admin", "me", "nobody"), passes(told, "/other")) == (False, True)


def test_a_dry_run_asks_nobody_and_refuses_nothing() -> None:
    told = behind(custom("me", ADMIN, dry_run=True))
    assert passes(told, "/admin")
    assert match_filter(ME) not in filters(told)


def test_a_deny_beside_it_holds_whatever_the_answer_is() -> None:
    told = behind(custom("me", ADMIN), Policy("shop", "deny", "DENY", (ADMIN,)))
    assert not passes(told, "/admin", "me")


def test_being_asked_by_one_provider_is_nothing_to_another() -> None:
    told = behind(custom("me", ADMIN), replace(custom("web", ADMIN), name="too"), providers=(ME, WEB))
    assert not passes(told, "/admin", "me")
    assert passes(told, "/admin", "me", "web")


def test_what_tokens_say_is_not_known_yet_so_more_is_asked_for() -> None:
    rule = PolicyRule(sources=(Source(request_principals=("https://i/joe",)),), operations=ADMIN.operations)
    assert not passes(behind(custom("me", rule)), "/admin")


@pytest.mark.parametrize("protocol", [Protocol.TCP, Protocol.AUTO])
def test_where_nobody_can_be_asked_it_is_refused_or_only_requests_are_let_in(protocol: Protocol) -> None:
    told = replace(behind(custom("me", PolicyRule())), ports=(FrontPort(1, protocol, (TUNNEL,)),))
    found = tunnel_filters(view(told), told, told.ports[0])
    if protocol is Protocol.TCP:
        assert not allowed(found, Request(PEER, method="", noted=frozenset(("me",))))
    else:
        assert found == {}
        listeners = [one for url, _, one in resources(view(told)) if url == LISTENER_TYPE]
        (inner,) = (one for one in listeners if one["name"].startswith("service"))
        assert [chain["name"] for chain in inner["filter_chains"]] == ["http"]
    assert not is_layer_4(told.policies[0])


def test_it_fails_closed_unless_somebody_said_open() -> None:
    for fail_open in (False, True):
        (_, ask, _) = ask_filters([replace(ME, fail_open=fail_open, status=503, timeout_ms=250)])
        config = ask["typed_config"]
        assert config["failure_mode_allow"] is fail_open
        assert config["status_on_error"] == {"code": 503}
        assert config["grpc_service"]["timeout"] == "0.25s"


def test_who_is_asked_has_a_pool_of_its_own_in_the_protocol_that_he_speaks() -> None:
    authz = Front("shop", "authz.shop", (), tuple(FrontPort(n, Protocol.AUTO, (TUNNEL,)) for n in (9000, 8000)))
    told = replace(view(behind(custom("me", ADMIN), providers=(ME, WEB))), asked=(authz,))
    names = [name for url, name, _ in resources(told) if url == CLUSTER_TYPE and "|ask-" in name]
    assert names == ["inbound-vip|8000|ask-http|authz.shop", "inbound-vip|9000|ask-grpc|authz.shop"]


def test_headers_that_an_answer_fills_are_taken_from_what_clients_send() -> None:
    (early,) = without_answers([WEB])
    assert early["typed_config"]["mutations"] == [{"remove": "x-team"}, {"remove": "x-user"}]
    assert without_answers([replace(WEB, asked_with=("x-user", "X-Team"))]) == []


def test_a_port_that_is_closed_asks_nobody() -> None:
    assert behind(custom("me", ADMIN)).bare.providers == ()
