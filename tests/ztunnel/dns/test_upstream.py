"""Which resolvers a question goes to."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from ambient.model.address import parse_endpoint
from ztunnel.dns.upstream import Resolvers

DIALLED = parse_endpoint("10.96.0.10:53")


@pytest.mark.parametrize(
    ("configured", "targets"),
    [
        ((), ["10.96.0.10:53"]),
        (("1.1.1.1", "fd00::1", "2.2.2.2:5353"), ["1.1.1.1:53", "[fd00::1]:53", "2.2.2.2:5353"]),
        (("nonsense",), ["10.96.0.10:53"]),
    ],
)
def test_the_configured_ones_or_the_one_the_pod_dialled(configured: tuple[str, ...], targets: list[str]) -> None:
    plane = cast("Any", SimpleNamespace(settings=SimpleNamespace(upstream_resolvers=configured)))
    assert [str(one) for one in Resolvers(plane, cast("Any", None)).targets(DIALLED)] == targets
