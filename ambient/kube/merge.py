"""An object with what status writers say about it. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def merged(raw: Mapping[str, Any], statuses: Sequence[Mapping[str, Any]]) -> Mapping[str, Any]:
    """`raw` with annotations, conditions (by type) and other status fields of each writer laid over it, in order.

    What speaks about another uid than the object's is left out. `raw` itself is not changed.
    """
    metadata = raw.get("metadata")
    if not statuses or not isinstance(metadata, Mapping):
        return raw
    annotations = dict(_mapping(metadata.get("annotations")))
    status = dict(_mapping(raw.get("status")))
    conditions = _conditions(status)
    for said in statuses:
        if said.get("uid", metadata.get("uid")) != metadata.get("uid"):
            continue
        annotations.update(_mapping(said.get("annotations")))
        conditions.update(_conditions(said))
        status.update({k: v for k, v in said.items() if k not in ("uid", "annotations", "conditions")})
    if conditions:
        status["conditions"] = list(conditions.values())
    result = {**raw, "metadata": {**metadata, "annotations": annotations}}
    if status:
        result["status"] = status
    return result


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _conditions(status: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    entries = status.get("conditions")
    listed = entries if isinstance(entries, list) else []
    return {str(entry.get("type")): entry for entry in listed if isinstance(entry, Mapping)}
