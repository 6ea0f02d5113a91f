"""The large configuration is as large as it says, and its budgets are judged by what was found."""

from __future__ import annotations

from collections import Counter

from ambient.kube.objects import parse_object
from bench.waypoint_scale import ENDPOINTS, ROUTES, SERVICES, WaypointScale, lines, objects


def test_it_is_as_large_as_it_says_and_every_object_can_be_read() -> None:
    found = Counter(parse_object(one, "bench", observed=True).kind for one in objects())
    assert found == {
        "Namespace": 1,
        "Gateway": 1,
        "Service": SERVICES + 1,
        "Pod": ENDPOINTS,
        "HTTPRoute": ROUTES,
    }
    assert (ROUTES, ENDPOINTS) == (2_000, 5_000)


def test_each_budget_is_held_or_missed_by_its_own_figure() -> None:
    good = WaypointScale(2500, 2.0, 2.5, 4_000_000, (40.0, 50.0, 900.0), (2500, 2600, 2600), (1.0, 20.0))
    assert "\n".join(lines(good)).count("| held |") == 4
    for bad in (
        WaypointScale(2500, 2.6, 2.5, 4_000_000, (40.0,), (2500,), (2.0,)),
        WaypointScale(2500, 2.0, 2.5, 4_000_000, (140.0,), (2500,), (2.0,)),
        WaypointScale(2500, 2.0, 2.5, 4_000_000, (40.0,), (2500, 20_000), (2.0,)),
        WaypointScale(2500, 2.0, 2.5, 4_000_000, (40.0,), (2500,), (2.0, 3_000.0)),
    ):
        assert "\n".join(lines(bad)).count("**missed**") == 1
