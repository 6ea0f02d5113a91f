"""20,000 spoilt inputs for everything that reads octets from outside: none crashes it, hangs it or makes it grow.

A million each are `./dev campaign fuzz`.
"""

from __future__ import annotations

import pytest

from ambient.errors import InvalidInput
from tests.support.fuzz import Crash, Target, fuzz
from tests.support.fuzz_targets import targets

TARGETS = {target.name: target for target in targets()}
INPUTS = 20_000
GROWTH_OBJECTS = 2_000
GROWTH_KB = 8_192


@pytest.mark.parametrize("name", TARGETS)
def test_spoilt_inputs_are_accepted_or_refused(name: str) -> None:
    result = fuzz(TARGETS[name], INPUTS)
    assert result.accepted > 0
    assert result.objects < GROWTH_OBJECTS
    assert result.kb < GROWTH_KB


@pytest.mark.parametrize("name", TARGETS)
def test_every_good_input_is_accepted(name: str) -> None:
    target = TARGETS[name]
    assert [seed for seed in target.seeds if not target.feed(seed)] == []


def test_sabotage_a_crash_is_told_with_its_input() -> None:
    def feed(data: bytes) -> bool:
        if b"\xff" in data:
            raise KeyError(data)
        raise InvalidInput("input", "", "never good")

    with pytest.raises(Crash, match=r"crashing: KeyError.* for .*ff"):
        fuzz(Target("crashing", (b"abcd",), feed), 5_000)


def test_sabotage_growth_is_noticed() -> None:
    kept: list[list[bytes]] = []

    def feed(data: bytes) -> bool:
        kept.append([data])
        return True

    assert fuzz(Target("growing", (b"abcd",), feed), 10_000).objects > GROWTH_OBJECTS
