"""Dicts become Envoy's messages; what is no field of theirs is refused."""

from __future__ import annotations

import pytest

from ambient.errors import InvalidInput
from ambient.waypoint.typed import CLUSTER_TYPE, ROUTE_TYPE, typed
from ambient.waypoint.wire import encode, encoding, message_class, version_of


def test_a_version_depends_on_the_content_alone() -> None:
    assert version_of({"a": 1, "b": [2]}) == version_of({"b": [2], "a": 1}) != version_of({"a": 1, "b": [3]})


def test_a_resource_has_the_bytes_of_its_message() -> None:
    made = encode(CLUSTER_TYPE, "x", {"name": "x", "type": "EDS"})
    assert (made.type_url, made.name, made.body) == (CLUSTER_TYPE, "x", b"\x0a\x01x\x10\x03")


def test_a_large_table_is_encoded_in_steps_and_is_the_message_that_it_would_be_in_one() -> None:
    hosts = [{"name": f"host-{number}", "domains": [f"{number}.x"]} for number in range(105)]
    table = {"name": "all", "virtual_hosts": hosts, "validate_clusters": False}
    steps = list(encoding(ROUTE_TYPE, "all", table))
    assert len(steps) >= 5
    made = encode(ROUTE_TYPE, "all", table)
    read = message_class("envoy.config.route.v3.RouteConfiguration").FromString(made.body)
    assert [one.name for one in read.virtual_hosts] == [one["name"] for one in hosts]
    assert (read.name, read.HasField("validate_clusters")) == ("all", True)
    assert made.version == version_of(table)


def test_a_field_that_envoy_does_not_know_is_refused_wherever_in_a_large_table_it_is() -> None:
    hosts: list[dict[str, object]] = [{"name": f"host-{number}", "domains": ["x"]} for number in range(60)]
    hosts[45]["nonsense"] = 1
    with pytest.raises(InvalidInput, match="nonsense"):
        encode(ROUTE_TYPE, "all", {"name": "all", "virtual_hosts": hosts})


def test_a_field_or_an_extension_that_envoy_does_not_know_is_refused() -> None:
    with pytest.raises(InvalidInput, match="nonsense"):
        encode(CLUSTER_TYPE, "x", {"nonsense": 1})
    with pytest.raises(InvalidInput, match="x"):
        encode(CLUSTER_TYPE, "x", {"transport_socket": typed("y", "no.such.package.v3.Z")})
