"""The annotation that limits the rate of a route's requests: "100/s", "client 10/m, 1000/h"."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from ambient.errors import InvalidInput
from ambient.kube.routing import Limit, RouteRule

ANNOTATION: Final = "ambient.mesh/rate-limit"
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_FORM: Final = re.compile(r"(client +)?([1-9][0-9]{0,8})/([smhd])")


def limited(rules: tuple[RouteRule, ...], annotations: Mapping[str, str], what: str) -> tuple[RouteRule, ...]:
    """`rules` with the limits that their route is annotated with; raises InvalidInput. `what` names the route."""
    text = annotations.get(ANNOTATION)
    if text is None:
        return rules
    limits = tuple(_limit(part.strip(), what) for part in text.split(","))
    if len({one.per_client for one in limits}) < len(limits):
        raise _refused(what, "at most one limit for all, and one for each client")
    return tuple(replace(rule, limits=limits) for rule in rules)


def _limit(text: str, what: str) -> Limit:
    found = _FORM.fullmatch(text)
    if found is None:
        raise _refused(what, f'{text[:60]!r}: expected a number and a unit, such as 100/s, 10/m, "client 5/h" or 9/d')
    return Limit(int(found[2]), _UNITS[found[3]], per_client=found[1] is not None)


def _refused(what: str, why: str) -> InvalidInput:
    return InvalidInput(what, f"metadata.annotations[{ANNOTATION}]", why)
