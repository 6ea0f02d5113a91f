"""localityLbSetting of a DestinationRule, read whole: a field that is not understood is refused."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Final

from ambient.kube import syntax
from ambient.kube.read import Field
from ambient.kube.traffic_values import Spread

_SETTING: Final = syntax.words("distribute failover failoverPriority enabled")
_LABELS: Final[Mapping[str, str]] = MappingProxyType(
    {
        "topology.kubernetes.io/region": "region",
        "topology.kubernetes.io/zone": "zone",
        "topology.istio.io/subzone": "subzone",
        "kubernetes.io/hostname": "node",
    }
)


def read_spread(field: Field) -> Spread:
    """Raises InvalidInput; every rule has its row in the tests."""
    entry = field.object(_SETTING)
    given = entry.present("distribute", "failover", "failoverPriority")
    if len(given) > 1:
        raise entry.need(given[1]).refuse(f"may not stand beside {given[0]}")
    return Spread(
        entry.read("enabled", Field.flag, True),
        entry.each("distribute", _share),
        entry.each("failover", _failover),
        entry.each("failoverPriority", _same),
    )


def _share(field: Field) -> tuple[str, tuple[tuple[str, int], ...]]:
    entry = field.object(("from", "to"))
    to = entry.need("to")
    if not isinstance(to.value, Mapping) or not to.value:
        raise to.refuse("needs at least one locality")
    shares = []
    for where, share in to.value.items():
        if complaint := _locality(str(where)):
            raise to.refuse(f"{where!r} {complaint}")
        if isinstance(share, bool) or not isinstance(share, int) or not 1 <= share <= 100:
            raise to.refuse(f"the share of {where!r} is no whole number of 1..100")
        shares.append((str(where), share))
    if sum(share for _, share in shares) != 100:
        raise to.refuse(f"the shares add up to {sum(share for _, share in shares)}, not to 100")
    return entry.need("from").checked(_locality), tuple(shares)


def _failover(field: Field) -> tuple[str, str]:
    entry = field.object(("from", "to"))
    here, there = entry.need("from").checked(_region), entry.need("to").checked(_region)
    if here == there:
        raise entry.need("to").refuse("is where it comes from")
    return here, there


def _same(field: Field) -> str:
    found = _LABELS.get(field.text())
    if found is None:
        raise field.refuse(f"proxies know of themselves only {', '.join(_LABELS)}")
    return found


def _locality(text: str) -> str:
    parts = text.split("/")
    if len(parts) > 3 or not all(parts):
        return "is no locality (region/zone/subzone)"
    if "*" in text and (text.count("*") > 1 or parts[-1] != "*"):
        return "may have a * as its last part alone"
    return ""


def _region(text: str) -> str:
    return "" if text and "/" not in text and "*" not in text else "is no region"
