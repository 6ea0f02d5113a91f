"""Times as people write them in routes and rules: 10s, 1m30s, 250ms, and in Istio's objects 1.5s."""

from __future__ import annotations

import re
from typing import Final

from ambient.kube.read import Field

_PARTS: Final = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)(ms|h|m|s)")
_WHOLE: Final = re.compile(r"([0-9]{1,5}(h|m|s|ms)){1,4}")
_FRACTIONS: Final = re.compile(r"([0-9]{1,9}(\.[0-9]{1,9})?(ms|h|m|s)){1,4}")
_UNITS_MS: Final = {"h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
_LONGEST_MS: Final = 100_000 * 3_600_000


def gateway_duration(field: Field) -> int:
    """Milliseconds of a duration of the Gateway API (GEP-2257); raises InvalidInput."""
    return _milliseconds(field, _WHOLE)


def istio_duration(field: Field) -> int:
    """Milliseconds of a duration in Istio's objects, fractions rounded up; raises InvalidInput."""
    return _milliseconds(field, _FRACTIONS)


def positive_duration(field: Field) -> int:
    """As `istio_duration`, at least a millisecond."""
    found = istio_duration(field)
    if not found:
        raise field.refuse("has to be at least 1ms")
    return found


def _milliseconds(field: Field, form: re.Pattern[str]) -> int:
    text = field.text()
    if not form.fullmatch(text):
        raise field.refuse(f"{text[:40]!r} is not a duration such as 10s or 1m30s")
    total = sum(float(number) * _UNITS_MS[unit] for number, unit in _PARTS.findall(text))
    if total > _LONGEST_MS:
        raise field.refuse(f"{text!r} is too long")
    return -int(-total // 1)
