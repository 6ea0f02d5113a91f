"""The annotation that limits a route's rate: read whole, or refused with the route."""

from __future__ import annotations

import pytest

from ambient.errors import InvalidInput
from ambient.kube.rate_limits import ANNOTATION, limited
from ambient.kube.routing import Limit, RouteRule

RULES = (RouteRule(), RouteRule())


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        ("100/s", (Limit(100, 1),)),
        ("client 10/m", (Limit(10, 60, per_client=True),)),
        (" client 10/h , 7/d ", (Limit(10, 3600, per_client=True), Limit(7, 86_400))),
    ],
)
def test_what_is_written_holds_for_every_rule(text: str, limits: tuple[Limit, ...]) -> None:
    assert [one.limits for one in limited(RULES, {ANNOTATION: text}, "route")] == [limits, limits]


def test_without_it_nothing_is_limited() -> None:
    assert limited(RULES, {}, "route") is RULES


@pytest.mark.parametrize(
    "text",
    ["", "100", "0/s", "-1/s", "1/w", "1.5/s", "10/m,", "each 5/s", "5/s, 6/s", "client 1/s,client 2/s", "9" * 12],
)
def test_anything_else_is_refused_with_the_route(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        limited(RULES, {ANNOTATION: text}, "HTTPRoute shop/web")
    assert "HTTPRoute shop/web" in str(refused.value)
    assert ANNOTATION in str(refused.value)
