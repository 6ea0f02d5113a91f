"""Limits of a route's rate, as Envoy takes them."""

from __future__ import annotations

from ambient.kube.routing import Limit
from ambient.waypoint.limits import LIMIT_FILTER, limit_filter, limits_of_route
from ambient.waypoint.typed import PREFIX
from ambient.waypoint.wire import encode

FILTER = f"{PREFIX}envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit"


def test_without_limits_a_route_says_nothing_and_the_filter_does_nothing() -> None:
    assert limits_of_route(()) == {}
    assert limit_filter()["typed_config"].keys() == {"@type", "stat_prefix"}


def test_a_limit_for_all_is_one_bucket_that_is_enforced() -> None:
    made = limits_of_route((Limit(100, 60),))[LIMIT_FILTER]
    assert made["token_bucket"] == {"max_tokens": 100, "tokens_per_fill": 100, "fill_interval": "60s"}
    assert made["filter_enabled"] == made["filter_enforced"] == {"default_value": {"numerator": 100}}
    assert "descriptors" not in made


def test_each_client_has_a_bucket_by_its_identity_and_there_are_not_more_than_so_many() -> None:
    made = limits_of_route((Limit(5, 1, per_client=True), Limit(9, 3600)))[LIMIT_FILTER]
    assert made["token_bucket"]["max_tokens"] == 9
    assert made["descriptors"][0]["token_bucket"]["max_tokens"] == 5
    assert made["max_dynamic_descriptors"] == 10_000
    assert made["always_consume_default_token_bucket"] is True
    expression = made["rate_limits"][0]["actions"][0]["extension"]["typed_config"]["text"]
    assert expression == 'filter_state["io.istio.peer_principal"]'


def test_each_value_of_a_header_and_of_a_claim_has_a_bucket_and_what_has_none_has_one_together() -> None:
    made = limits_of_route((Limit(5, 1, header="x-team"), Limit(6, 60, claim="sub")))[LIMIT_FILTER]
    assert [one["entries"] for one in made["descriptors"]] == [[{"key": "header:x-team"}], [{"key": "claim:sub"}]]
    assert [one["token_bucket"]["max_tokens"] for one in made["descriptors"]] == [5, 6]
    header, claim = (one["actions"][0] for one in made["rate_limits"])
    expression = header["extension"]["typed_config"]["text"]
    assert expression.startswith('"x-team" in request.headers ? (')
    assert expression.endswith(': " "')
    assert claim["metadata"]["default_value"] == " "
    assert [one["key"] for one in claim["metadata"]["metadata_key"]["path"]] == ["payload", "sub"]


def test_what_is_made_is_a_message_of_its_type() -> None:
    for limits in (
        (Limit(1, 1),),
        (Limit(1, 86_400, per_client=True),),
        (Limit(1, 1, header="x"), Limit(1, 1, claim="y")),
    ):
        made = limits_of_route(limits)[LIMIT_FILTER]
        encode(FILTER, "x", {key: value for key, value in made.items() if key != "@type"})
