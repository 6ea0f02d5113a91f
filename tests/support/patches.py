"""Patches as a Kubernetes API server applies them: JSON merge patch and JSON patch."""

from __future__ import annotations

import json
from typing import Any


def merge(current: Any, patch: Any) -> Any:
    """RFC 7386."""
    if not isinstance(patch, dict):
        return patch
    result = dict(current) if isinstance(current, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merge(result.get(name), value)
    return result


def json_patch(current: Any, changes: list[Any]) -> Any:
    """RFC 6902: test, add and replace of members."""
    result = json.loads(json.dumps(current))
    for change in changes:
        *path, last = change["path"].strip("/").split("/")
        place = result
        for part in path:
            place = place[int(part) if isinstance(place, list) else part]
        if change["op"] == "test":
            if place[last] != change["value"]:
                raise ValueError(f"test of {change['path']} failed")
        else:
            place[last] = change["value"]
    return result
