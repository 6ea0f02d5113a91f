"""Dicts become Envoy's messages; what is no field of theirs is refused."""

from __future__ import annotations

import pytest

from ambient.errors import InvalidInput
from ambient.waypoint.typed import CLUSTER_TYPE, typed
from ambient.waypoint.wire import encode, version_of


def test_a_version_depends_on_the_content_alone() -> None:
    assert version_of({"a": 1, "b": [2]}) == version_of({"b": [2], "a": 1}) != version_of({"a": 1, "b": [3]})


def test_a_resource_has_the_bytes_of_its_message() -> None:
    made = encode(CLUSTER_TYPE, "x", {"name": "x", "type": "EDS"})
    assert (made.type_url, made.name, made.body) == (CLUSTER_TYPE, "x", b"\x0a\x01x\x10\x03")


def test_a_field_or_an_extension_that_envoy_does_not_know_is_refused() -> None:
    with pytest.raises(InvalidInput, match="nonsense"):
        encode(CLUSTER_TYPE, "x", {"nonsense": 1})
    with pytest.raises(InvalidInput, match="x"):
        encode(CLUSTER_TYPE, "x", {"transport_socket": typed("y", "no.such.package.v3.Z")})
