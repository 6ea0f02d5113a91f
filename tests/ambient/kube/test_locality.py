"""localityLbSetting: everything that is read, and every rule that refuses one."""

from __future__ import annotations

from typing import Any

import pytest

from ambient.errors import InvalidInput
from ambient.kube.locality import read_spread
from ambient.kube.read import Field
from ambient.kube.traffic_values import Spread

SHARES = {"from": "r1/z1/*", "to": {"r1/z1": 80, "r2": 20}}


def read(**setting: Any) -> Spread:
    return read_spread(Field(setting, "localityLbSetting", "DestinationRule shop/web"))


def test_everything_that_is_read_of_it() -> None:
    assert read() == Spread()
    assert read(enabled=False) == Spread(enabled=False)
    assert read(distribute=[SHARES]) == Spread(distribute=(("r1/z1/*", (("r1/z1", 80), ("r2", 20))),))
    assert read(failover=[{"from": "r1", "to": "r2"}]) == Spread(failover=(("r1", "r2"),))
    labels = ["topology.kubernetes.io/zone", "kubernetes.io/hostname"]
    assert read(failoverPriority=labels) == Spread(priority=("zone", "node"))


@pytest.mark.parametrize(
    ("setting", "why"),
    [
        ({"other": 1}, "other"),
        ({"distribute": [SHARES], "failover": [{"from": "a", "to": "b"}]}, "may not stand beside distribute"),
        ({"distribute": [{"from": "r1", "to": {}}]}, "needs at least one locality"),
        ({"distribute": [{"from": "r1", "to": {"r1": 99}}]}, "add up to 99"),
        ({"distribute": [{"from": "r1", "to": {"r1": 0, "r2": 100}}]}, "no whole number"),
        ({"distribute": [{"from": "*/z1", "to": {"r1": 100}}]}, r"may have a \* as its last part alone"),
        ({"distribute": [{"from": "r1", "to": {"r1//z": 100}}]}, "is no locality"),
        ({"failover": [{"from": "r1", "to": "r1"}]}, "is where it comes from"),
        ({"failover": [{"from": "r1/z1", "to": "r2"}]}, "is no region"),
        ({"failoverPriority": ["version=v1"]}, "proxies know of themselves only"),
    ],
)
def test_what_cannot_be_had_is_refused_with_its_place(setting: dict[str, Any], why: str) -> None:
    with pytest.raises(InvalidInput, match=why) as refused:
        read(**setting)
    assert "localityLbSetting" in str(refused.value)
