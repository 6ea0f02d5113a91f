"""The annotation that limits a route's rate: read whole, or refused with the route."""

from __future__ import annotations

import pytest

from ambient.errors import InvalidInput
from ambient.kube.rate_limits import ANNOTATION, limited
from ambient.kube.routing import Limit, RouteRule

NAME = "HTTPRoute/shop/web"
RULES = (RouteRule(), RouteRule())


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        ("100/s", (Limit(100, 1),)),
        ("client 10/m", (Limit(10, 60, per_client=True),)),
        ("global 9/m", (Limit(9, 60, route="HTTPRoute/shop/web"),)),
        (
            "5/s, client 6/s, global 7/s deny, global client 8/s deny",
            (
                Limit(5, 1),
                Limit(6, 1, per_client=True),
                Limit(7, 1, route="HTTPRoute/shop/web", strict=True),
                Limit(8, 1, per_client=True, route="HTTPRoute/shop/web", strict=True),
            ),
        ),
        (
            "global 7/s allow, global client 8/s",
            (Limit(7, 1, route="HTTPRoute/shop/web"), Limit(8, 1, per_client=True, route="HTTPRoute/shop/web")),
        ),
        (
            "header X-Team 5/s, header x-b 6/s, claim https://a.example.com/org 7/s, global header x-team 8/m deny",
            (
                Limit(5, 1, header="x-team"),
                Limit(6, 1, header="x-b"),
                Limit(7, 1, claim="https://a.example.com/org"),
                Limit(8, 60, header="x-team", route="HTTPRoute/shop/web", strict=True),
            ),
        ),
        (" client 10/h , 7/d ", (Limit(10, 3600, per_client=True), Limit(7, 86_400))),
    ],
)
def test_what_is_written_holds_for_every_rule(text: str, limits: tuple[Limit, ...]) -> None:
    assert [one.limits for one in limited(RULES, {ANNOTATION: text}, "a route", NAME)] == [limits, limits]


def test_without_it_nothing_is_limited() -> None:
    assert limited(RULES, {}, "a route", NAME) is RULES


@pytest.mark.parametrize(
    "text",
    [
        *("", "100", "0/s", "-1/s", "1/w", "1.5/s", "10/m,", "each 5/s", "5/s, 6/s", "client 1/s,client 2/s", "9" * 12),
        *("global", "client global 5/s", "5/s deny", "client 5/s allow", "global 5/s open", "global 5/s, global 6/m"),
        *("header 5/s", "header x y 5/s", "header :path 5/s", "header host 5/s", "header x-forwarded-client-cert 5/s"),
        *(
            "header x 5/s, header X 6/s",
            "claim 5/s",
            "claim a[b] 5/s",
            "claim scope 5/s",
            "global claim permission 5/s deny",
            "claim a 5/s, claim a 6/s",
            "client header x 5/s",
        ),
        ", ".join(f"header x-{number} 5/s" for number in range(9)),
        *("global 5/s, global client 6/s deny", "global 5/s deny, global client 6/s allow"),
    ],
)
def test_anything_else_is_refused_with_the_route(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        limited(RULES, {ANNOTATION: text}, "HTTPRoute shop/web", NAME)
    assert "HTTPRoute shop/web" in str(refused.value)
    assert ANNOTATION in str(refused.value)
