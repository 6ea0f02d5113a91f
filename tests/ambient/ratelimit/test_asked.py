"""What proxies ask and are answered: read whole or refused, one count for each thing that is limited."""

from __future__ import annotations

from typing import Any

import pytest

from ambient.errors import InvalidInput
from ambient.kube.routing import Limit
from ambient.ratelimit.asked import Asked, Counted, read_request, response
from ambient.waypoint.limits import descriptor_key
from ambient.waypoint.shared_limits import DOMAIN, LAX, shared_limit_filters, shared_limits_of_route
from tests.support.limit_requests import NAME, ask, limit


def key(**said: str) -> str:
    return read_request(ask(limit(**said)))[0][0].key


def test_a_limit_is_read_with_its_numbers() -> None:
    (asked,), hits = read_request(ask(limit("5/60")))
    assert (asked.count, asked.period_s, hits) == (5, 60, 1)
    assert read_request(ask(limit(), hits=3))[1] == 3


def test_routes_rates_and_clients_have_counts_of_their_own_and_all_proxies_the_same() -> None:
    keys = {key(), key(route="HTTPRoute/shop/other"), key(rate="6/60"), key(client="a"), key(client="b")}
    assert len(keys) == 5
    assert key(client="a") == key(client="a")


def test_values_of_headers_and_claims_have_counts_of_their_own() -> None:
    named = [
        ("client", "a"),
        ("header:x", "a"),
        ("header:x", "b"),
        ("header:y", "a"),
        ("claim:x", "a"),
        ("claim:x", ""),
    ]
    assert len({key(**{name: value}) for name, value in named} | {key()}) == len(named) + 1


def test_a_value_of_any_length_is_counted_and_not_refused() -> None:
    """Who could have it refused would pass uncounted where a limit says allow."""
    assert key(**{"claim:sub": "a" * 50_000}) != key(**{"claim:sub": "a" * 50_001})


def test_values_that_are_too_many_share_a_bounded_number_of_counts_by_header_or_claim() -> None:
    def asked(whom: str, value: str) -> Asked:
        return read_request(ask(limit(**{whom: value})))[0][0]

    found = [asked("header:x", str(number)) for number in range(20_000)]
    assert len({one.key for one in found}) == 20_000
    assert len({one.values for one in found}) == 1
    assert 3900 < len({one.rest for one in found}) <= 4096
    other = [asked("header:y", "1"), asked("claim:x", "1")]
    assert len({one.values for one in (found[1], *other)} | {one.rest for one in (found[1], *other)}) == 6
    assert all("{HTTPRoute/shop/web}" in key for one in other for key in (one.values, one.rest))
    assert (asked("client", "a").values, asked("client", "a").rest) == ("", "")


def test_what_a_client_is_called_stands_in_no_key() -> None:
    assert "evil" not in key(client="evil}{")


def test_keys_of_a_route_are_in_one_place_of_redis() -> None:
    assert "{HTTPRoute/shop/web}" in key()
    assert "{HTTPRoute/shop/web}" in key(client="a")


@pytest.mark.parametrize(
    "message",
    [
        ask(),
        ask(limit(), domain="other"),
        ask({"route": NAME}),
        ask({"rate": "5/60"}),
        ask(limit("0/60")),
        ask(limit("5/61")),
        ask(limit("-5/60")),
        ask(limit("5/60 ")),
        ask(limit(other="x")),
        ask(limit(route="")),
        ask(limit(route="a}{b")),
        ask(limit(route="a" * 5000)),
        ask(limit(**{f"header:{'a' * 5000}": "x"})),
        ask(limit(client="a", **{"claim:sub": "b"})),
        ask(limit(**{"header:x": "a", "header:y": "b"})),
        ask(*[limit()] * 9),
        ask(limit(), hits=2_000_000),
    ],
)
def test_what_is_not_understood_is_refused(message: Any) -> None:
    with pytest.raises(InvalidInput):
        read_request(message)


def test_an_entry_that_is_there_twice_is_refused() -> None:
    message = ask(limit())
    message.descriptors[0].entries.add(key="rate", value="500/60")
    with pytest.raises(InvalidInput):
        read_request(message)


def test_what_proxies_are_told_to_ask_is_understood() -> None:
    assert shared_limit_filters()[0]["typed_config"]["domain"] == DOMAIN
    kinds: tuple[dict[str, Any], ...] = ({}, {"per_client": True}, {"header": "x-team"}, {"claim": "sub"})
    for whose in kinds:
        wanted = Limit(9, 3600, route=NAME, **whose)
        (one,) = shared_limits_of_route((wanted,))[LAX]["rate_limits"]
        said = {
            action["generic_key"]["descriptor_key"]: action["generic_key"]["descriptor_value"]
            for action in one["actions"]
            if "generic_key" in action
        }
        told = {name: "x"} if (name := descriptor_key(wanted)) else {}
        (asked,), _ = read_request(ask({**said, **told}))
        assert (asked.count, asked.period_s) == (9, 3600)


def test_an_answer_tells_of_each_limit_and_is_over_when_one_is() -> None:
    asked = (Asked("a", 5, 60), Asked("b", 9, 86_400))
    made = response(asked, (Counted(4, 1500, over=False), Counted(-1, 2000, over=True)))
    over = made.overall_code
    assert [one.code for one in made.statuses] == [1, 2]
    assert [one.limit_remaining for one in made.statuses] == [4, 0]
    assert [one.current_limit.requests_per_unit for one in made.statuses] == [5, 9]
    assert [one.current_limit.unit for one in made.statuses] == [2, 4]
    assert made.statuses[0].duration_until_reset.ToMilliseconds() == 1500
    fine = response(asked, (Counted(4, 1, over=False), Counted(3, 1, over=False)))
    assert (fine.overall_code, over) == (1, 2)
