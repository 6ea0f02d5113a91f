"""What `ambient status` and `ambient check` say of waypoints; the rest of them is in `test_reads`."""

from __future__ import annotations

from typing import Any

from ambient.cli.health import Finding, waypoints

NAME = "waypoint shop/waypoint"


def sync(proxies: int, *, settled: bool = True, **refused: str) -> dict[str, Any]:
    return {"waypoints": {"shop/waypoint": {"proxies": proxies, "settled": settled, "refused": refused}}}


def test_a_waypoints_proxies_are_counted_over_all_replicas() -> None:
    assert list(waypoints([sync(1), sync(2)])) == [Finding(NAME, True, "3 proxies, up to date")]


def test_what_is_wrong_with_it_is_said() -> None:
    assert list(waypoints([sync(0)])) == [Finding(NAME, False, "0 proxies, NO PROXY: its services refuse")]
    assert list(waypoints([sync(1, settled=False)])) == [Finding(NAME, True, "1 proxy, BEHIND")]
    (one,) = waypoints([sync(1, route="bad regex")])
    assert one == Finding(NAME, False, "1 proxy, up to date; REFUSES route: bad regex")


def test_a_gateway_is_called_one_and_without_a_proxy_nobody_gets_in() -> None:
    page = sync(0)
    page["waypoints"]["shop/waypoint"]["ingress"] = True
    assert list(waypoints([page])) == [Finding("gateway shop/waypoint", False, "0 proxies, NO PROXY: nobody gets in")]


def test_what_is_closed_because_a_proxy_refuses_something_is_said() -> None:
    page = sync(1, route="bad regex")
    page["waypoints"]["shop/waypoint"]["closed"] = ["service|80|web"]
    (one,) = waypoints([page])
    assert one.detail.endswith("REFUSES route: bad regex; CLOSED: service|80|web")


def test_without_waypoints_nothing_is_said() -> None:
    assert list(waypoints([{"observed": 1}])) == []
