"""What `ambient status` says of waypoints; the rest of it is in `test_reads`."""

from __future__ import annotations

from typing import Any

from ambient.cli.status import waypoint_lines


def sync(proxies: int, *, settled: bool = True, **refused: str) -> dict[str, Any]:
    return {"waypoints": {"shop/waypoint": {"proxies": proxies, "settled": settled, "refused": refused}}}


def test_a_waypoints_proxies_are_counted_over_all_replicas() -> None:
    assert list(waypoint_lines([sync(1), sync(2)])) == ["waypoint shop/waypoint: 3 proxies, up to date"]


def test_what_is_wrong_with_it_is_said() -> None:
    assert list(waypoint_lines([sync(0)])) == ["waypoint shop/waypoint: 0 proxies, NO PROXY: its services refuse"]
    assert list(waypoint_lines([sync(1, settled=False)])) == ["waypoint shop/waypoint: 1 proxy, BEHIND"]
    (line,) = waypoint_lines([sync(1, route="bad regex")])
    assert line == "waypoint shop/waypoint: 1 proxy, up to date; REFUSES route: bad regex"


def test_what_is_closed_because_a_proxy_refuses_something_is_said() -> None:
    page = sync(1, route="bad regex")
    page["waypoints"]["shop/waypoint"]["closed"] = ["service|80|web"]
    (line,) = waypoint_lines([page])
    assert line.endswith("REFUSES route: bad regex; CLOSED: service|80|web")


def test_without_waypoints_nothing_is_said() -> None:
    assert list(waypoint_lines([{"observed": 1}])) == []
