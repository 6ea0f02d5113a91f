"""Times as people write them: what they mean, and what is none."""

from __future__ import annotations

import pytest

from ambient.errors import InvalidInput
from ambient.kube.durations import gateway_duration, istio_duration, positive_duration
from ambient.kube.read import Field


@pytest.mark.parametrize(("text", "milliseconds"), [("10s", 10_000), ("1m30s", 90_000), ("250ms", 250), ("0s", 0)])
def test_a_duration_is_read(text: str, milliseconds: int) -> None:
    assert gateway_duration(Field(text, "at", "x")) == milliseconds == istio_duration(Field(text, "at", "x"))


def test_istio_has_fractions_and_they_are_rounded_up() -> None:
    assert [istio_duration(Field(text, "at", "x")) for text in ("1.5s", "0.0001s", "0.5h")] == [1500, 1, 1_800_000]
    with pytest.raises(InvalidInput, match="is not a duration"):
        gateway_duration(Field("1.5s", "at", "x"))


@pytest.mark.parametrize("text", ["", "10", "s", "-1s", "1d", "1s ", "999999999h"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        istio_duration(Field(text, "at", "x"))


def test_where_nothing_cannot_be_meant_it_is_refused() -> None:
    with pytest.raises(InvalidInput, match="at least 1ms"):
        positive_duration(Field("0s", "at", "x"))
