"""A waypoint's settings: who it is follows from its pod."""

from __future__ import annotations

import pytest

from ambient.errors import InvalidInput
from ambient.settings import read_settings
from ambient.waypoint.agent.settings import WaypointSettings
from ambient.waypoint.overload import Bearable

GIVEN = {
    "GATEWAY_NAME": "waypoint",
    "POD_NAME": "waypoint-1",
    "POD_NAMESPACE": "shop",
    "SERVICE_ACCOUNT": "edge",
    "INSTANCE_IP": "10.1.1.1",
    "XDS_ADDRESS": "https://istiod:15012",
    "XDS_ROOT_CA": "/r/root-cert.pem",
    "AUTH_TOKEN": "/t/istio-token",
}


def test_it_asks_as_its_own_account_and_for_its_own_gateway() -> None:
    settings = read_settings(WaypointSettings, GIVEN)
    assert settings.identity == "spiffe://cluster.local/ns/shop/sa/edge"
    assert settings.control.headers == (("ambient-gateway", "waypoint"),)
    assert settings.control.target == "istiod:15012"


@pytest.mark.parametrize("name", GIVEN)
def test_nothing_of_it_is_guessed(name: str) -> None:
    with pytest.raises(InvalidInput, match=name):
        read_settings(WaypointSettings, {key: value for key, value in GIVEN.items() if key != name})


def test_what_it_can_bear_is_set() -> None:
    assert read_settings(WaypointSettings, GIVEN).bearable == Bearable(200_000, 0)
    more = {"AMBIENT_ENVOY_CONNECTIONS": "500", "AMBIENT_ENVOY_HEAP_MIB": "256"}
    assert read_settings(WaypointSettings, {**GIVEN, **more}).bearable == Bearable(500, 256)
