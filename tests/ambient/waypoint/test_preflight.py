"""Preflights that are answered with what they ask for: only where a star cannot stand, and only those."""

from __future__ import annotations

from typing import Any

import pytest

from ambient.kube.routing import Cors, Limit, RouteMatch, RouteRule, TextMatch
from ambient.waypoint.front import Route
from ambient.waypoint.preflight import preflights
from ambient.waypoint.route_filters import CORS_FILTER

ANYBODY = TextMatch("", ".*", "RegularExpression")


def made(
    *, method: str = "", limits: tuple[Limit, ...] = (), forward: bool = False, credentials: bool = True, **cors: Any
) -> Any:
    asked = {"origins": (ANYBODY,), "methods": ("*",), **cors}
    rule = RouteRule(cors=Cors(**asked, credentials=credentials, forward=forward), limits=limits)
    return list(preflights(Route("r", 80, RouteMatch(method=method), rule)))


@pytest.mark.parametrize(
    "of",
    [{"credentials": False}, {"methods": ("GET",)}, {"forward": True}, {"method": "GET"}, {"origins": ()}],
    ids=["no credentials", "no star", "others go to the application", "no route of preflights", "nobody is allowed"],
)
def test_what_the_filter_can_answer_it_answers(of: dict[str, Any]) -> None:
    assert made(**of) == []
    assert list(preflights(Route("r", 80, RouteMatch(), RouteRule()))) == []


def test_what_is_allowed_is_what_is_asked_for_or_what_is_written() -> None:
    def told(**cors: Any) -> dict[str, str]:
        (answer,) = made(**cors)
        assert answer["direct_response"] == {"status": 200}
        return {one["header"]["key"]: one["header"]["value"] for one in answer["response_headers_to_add"]}

    every = told(headers=("*",), exposed=("x-a", "x-b"), max_age_s=5)
    assert every == {
        "access-control-allow-origin": "%REQ(origin)%",
        "access-control-allow-credentials": "true",
        "access-control-allow-methods": "%REQ(access-control-request-method)%",
        "access-control-allow-headers": "%REQ(access-control-request-headers)%",
        "access-control-expose-headers": "x-a,x-b",
        "access-control-max-age": "5",
    }
    assert told(methods=("GET", "PUT"), headers=("*",))["access-control-allow-methods"] == "GET,PUT"
    assert told(headers=("x-a",))["access-control-allow-headers"] == "x-a"


def test_a_percent_sign_in_a_name_is_said_and_not_read_as_a_format() -> None:
    (answer,) = made(headers=("x-%", "%REQ(x)%"), exposed=("%",))
    told = {one["header"]["key"]: one["header"]["value"] for one in answer["response_headers_to_add"]}
    assert told["access-control-allow-headers"] == "x-%%,%%REQ(x)%%"
    assert told["access-control-expose-headers"] == "%%"


def test_only_preflights_of_allowed_origins_are_answered_and_limits_stay() -> None:
    origins = (TextMatch("", "https://a.b"), TextMatch("", "https://.+", "RegularExpression"))
    answers = made(origins=(*origins, TextMatch("", "http://x", "Prefix")), limits=(Limit(1, 1),))
    wanted = ({"exact": "https://a.b"}, {"safe_regex": {"regex": "https://.+"}}, {"prefix": "http://x"})
    for answer, origin in zip(answers, wanted, strict=True):
        asked = {one["name"]: one["string_match"] for one in answer["match"]["headers"]}
        assert asked == {
            ":method": {"exact": "OPTIONS"},
            "origin": origin,
            "access-control-request-method": {"safe_regex": {"regex": ".+"}},
        }
        assert CORS_FILTER not in answer["typed_per_filter_config"]
        assert answer["typed_per_filter_config"]
