"""What to do about the ConfigMap with the roots in one namespace. Pure.

It is ours when it bears our label and nobody known to keep such ConfigMaps (another mesh's control plane) wrote its
data. Everybody else's is left alone: two that write one object would fight for ever.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

KEY: Final = "root-cert.pem"
LABEL: Final = "app.kubernetes.io/managed-by"
OWNER: Final = "ambient-control"
RETIRES: Final = "ambient.mesh/old-roots-until"
"""Annotation: until when the roots of a replaced authority are among these. A restarted control plane reads it."""
SYSTEM: Final = frozenset({"kube-system", "kube-public", "kube-node-lease"})
_RIVALS: Final = ("pilot-discovery", "istiod", "istio", "cert-manager")


@dataclass(frozen=True, slots=True)
class Wanted:
    """`roots`: PEM. `retires`: RFC 3339, "" when no root is about to go."""

    roots: str
    retires: str = ""

    def content(self, name: str) -> dict[str, Any]:
        """The object to be made. (Also what an update merges in: no field of ours is ever left out.)"""
        return {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": name, "labels": {LABEL: OWNER}, "annotations": {RETIRES: self.retires}},
            "data": {KEY: self.roots},
        }


def is_ours(content: Mapping[str, Any]) -> bool:
    """Whether a ConfigMap that is there is ours to write."""
    metadata = content.get("metadata") or {}
    if (metadata.get("labels") or {}).get(LABEL) != OWNER:
        return False
    for entry in metadata.get("managedFields") or ():
        writes_data = "f:data" in (entry.get("fieldsV1") or {})
        if writes_data and str(entry.get("manager", "")).startswith(_RIVALS):
            return False
    return True


def is_right(content: Mapping[str, Any], wanted: Wanted) -> bool:
    """Whether a ConfigMap of ours says what it should, and nothing else."""
    annotations = (content.get("metadata") or {}).get("annotations") or {}
    return content.get("data") == {KEY: wanted.roots} and annotations.get(RETIRES, "") == wanted.retires


def inherited(content: Mapping[str, Any]) -> tuple[str, datetime] | None:
    """The roots that a ConfigMap of ours holds, and until when those of a replaced authority are trusted."""
    if not is_ours(content):
        return None
    text = ((content.get("metadata") or {}).get("annotations") or {}).get(RETIRES, "")
    roots = (content.get("data") or {}).get(KEY)
    try:
        until = datetime.fromisoformat(text)
    except (ValueError, TypeError):
        return None
    return (roots, until if until.tzinfo is not None else until.replace(tzinfo=UTC)) if isinstance(roots, str) else None
