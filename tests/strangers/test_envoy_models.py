"""Envoy takes whatever our parsers take: random services, with everything that people may write of them.

`./dev campaign waypoint_models` does the same with ten thousand.
"""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.support.envoy_fed import Told, fed_envoy
from tests.support.random_gateways import gateway_model
from tests.support.waypoint_models import models, spoilt, take

SHARE = 50


def test_three_hundred_random_models_one_after_another_in_one_envoy(tmp_path: Path) -> None:
    async def scenario() -> None:
        told = Told()
        async with fed_envoy(told, tmp_path) as envoy:
            for seed in range(1, 7):
                assert (await take(told, envoy, models(seed, SHARE))).refused == {}

    asyncio.run(scenario())


def test_forty_random_gateways_one_after_another_in_one_envoy(tmp_path: Path) -> None:
    async def scenario() -> None:
        told = Told()
        async with fed_envoy(told, tmp_path) as envoy:
            for seed in range(1, 41):
                assert (seed, (await take(told, envoy, gateway_model(seed))).refused) == (seed, {})

    asyncio.run(scenario())


def test_what_envoy_does_not_take_is_seen_and_named(tmp_path: Path) -> None:
    async def scenario() -> None:
        told = Told()
        async with fed_envoy(told, tmp_path) as envoy:
            good = models(1, 10)
            bad, name = spoilt(good)
            assert (await take(told, envoy, bad)).refused.keys() == {name}
            assert (await take(told, envoy, good)).refused == {}

    asyncio.run(scenario())
