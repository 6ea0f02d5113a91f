"""The annotation that limits the rate of a route's requests: "100/s", "client 10/m, header x-a 5/s, global 9/h deny".

Global limits that do not agree on what becomes of requests when nobody counts are asked for one after the other, so a
request that the second refuses would have been counted by the first: one client could use up everybody's.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from ambient.errors import InvalidInput
from ambient.kube.jwt_rules import SPACE_DELIMITED
from ambient.kube.route_syntax import header_name
from ambient.kube.routing import Limit, RouteRule

ANNOTATION: Final = "ambient.mesh/rate-limit"
_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_FORM: Final = re.compile(
    r"(?P<global>global +)?"
    r"(?:(?P<client>client) +|header +(?P<header>[^ ]+) +|claim +(?P<claim>[A-Za-z0-9_.:/-]{1,128}) +)?"
    r"(?P<count>[1-9][0-9]{0,8})/(?P<unit>[smhd])( +(?P<failure>allow|deny))?"
)
_MOST: Final = 8
"""Of a route. A proxy asks for all of them with each request."""
_NAMELESS: Final = frozenset({"host", "x-forwarded-client-cert"})
"""Headers that the proxy has under another name, or writes itself."""


def limited(
    rules: tuple[RouteRule, ...], annotations: Mapping[str, str], what: str, route: str
) -> tuple[RouteRule, ...]:
    """`rules` with the limits that their route is annotated with; raises InvalidInput. `what` names the route in
    words, `route` among all routes."""
    text = annotations.get(ANNOTATION)
    if text is None:
        return rules
    limits = tuple(_limit(part.strip(), what, route) for part in text.split(","))
    if len({(one.per_client, one.header, one.claim, bool(one.route)) for one in limits}) < len(limits):
        raise _refused(what, "at most one limit for all, for each client, header and claim, of each proxy and global")
    if len(limits) > _MOST:
        raise _refused(what, f"at most {_MOST} limits")
    if len({one.strict for one in limits if one.route}) > 1:
        raise _refused(what, "the global limits of one route are counted together: all of them end in deny, or none")
    return tuple(replace(rule, limits=limits) for rule in rules)


def _limit(text: str, what: str, route: str) -> Limit:
    found = _FORM.fullmatch(text)
    if found is None:
        raise _refused(
            what,
            f'{text[:60]!r}: expected a number and a unit, such as 100/s, 10/m, "client 5/h", "header x-team 5/s",'
            ' "claim sub 5/s", "global 9/d" or "global client 9/d deny"',
        )
    header = (found["header"] or "").lower()
    if header and (complaint := header_name(header)):
        raise _refused(what, f"{text[:60]!r}: {complaint}")
    if header in _NAMELESS:
        raise _refused(what, f"{text[:60]!r}: {header} is nothing to tell requests apart by")
    if found["claim"] in SPACE_DELIMITED:
        raise _refused(what, f"{text[:60]!r}: {found['claim']} is a list of words, which has no value to count by")
    if found["failure"] and not found["global"]:
        raise _refused(what, f"{text[:60]!r}: allow and deny say what becomes of a global limit that cannot be counted")
    return Limit(
        int(found["count"]),
        _UNITS[found["unit"]],
        per_client=found["client"] is not None,
        route=route if found["global"] else "",
        strict=found["failure"] == "deny",
        header=header,
        claim=found["claim"] or "",
    )


def _refused(what: str, why: str) -> InvalidInput:
    return InvalidInput(what, f"metadata.annotations[{ANNOTATION}]", why)
