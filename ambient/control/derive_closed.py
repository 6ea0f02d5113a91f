"""What stands in for a stored policy that cannot be read and has no good version: it closes what it selects. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ambient.kube.objects import PeerAuthentication, RefusedObject
from ambient.kube.policies import PeerMtls
from ambient.model.policy import Action, Authorization, PolicyScope

DRY_RUN: Final = "istio.io/dry-run"
TRUE: Final = frozenset({"1", "t", "T", "true", "TRUE", "True"})
FALSE: Final = frozenset({"0", "f", "F", "false", "FALSE", "False"})
"""How the annotation may be written, as Go reads a boolean. Anything else is no dry run, and said so."""


def scope_of(namespace: str, selector: Mapping[str, str] | None, root_namespace: str) -> PolicyScope:
    if selector:
        return PolicyScope.WORKLOAD_SELECTOR
    return PolicyScope.GLOBAL if namespace == root_namespace else PolicyScope.NAMESPACE


def closing(refused: RefusedObject, root_namespace: str) -> tuple[Authorization, Mapping[str, str] | None] | None:
    """A policy in the place of an unreadable one that lets nothing through where the real one would have applied.

    What it selects is taken from it where that much can be read, else its whole namespace (or mesh).
    """
    metadata = refused.raw.get("metadata")
    annotations = metadata.get("annotations") if isinstance(metadata, Mapping) else None
    if isinstance(annotations, Mapping) and str(annotations.get(DRY_RUN)) in TRUE:
        return None  # it would have decided nothing
    spec = refused.raw.get("spec")
    spec = spec if isinstance(spec, Mapping) else {}
    action = spec.get("action", "ALLOW" if refused.raw else "DENY")
    if action in ("AUDIT", "CUSTOM") or names_targets(spec):
        return None
    selector = _readable_selector(spec)
    policy = Authorization(
        name=refused.name,
        namespace=refused.namespace,
        scope=scope_of(refused.namespace, selector, root_namespace),
        action=Action.ALLOW if action == "ALLOW" else Action.DENY,
        rules=() if action == "ALLOW" else ((),),
    )
    return policy, selector


def names_targets(spec: Mapping[str, object]) -> bool:
    """It is for waypoints. An empty list names nothing: such a policy, could it be read, would be for ztunnels."""
    return spec.get("targetRef") is not None or spec.get("targetRefs") not in (None, [])


def closed_peer(refused: RefusedObject) -> PeerAuthentication:
    """An unreadable PeerAuthentication counts as STRICT."""
    spec = refused.raw.get("spec")
    selector = _readable_selector(spec) if isinstance(spec, Mapping) else None
    return PeerAuthentication(
        name=refused.name, namespace=refused.namespace, selector=selector, mtls=PeerMtls("STRICT")
    )


def _readable_selector(spec: Mapping[str, object]) -> Mapping[str, str] | None:
    """matchLabels of a spec that is otherwise invalid; None when it has none or they cannot be read."""
    selector = spec.get("selector")
    labels = selector.get("matchLabels") if isinstance(selector, Mapping) else None
    if not isinstance(labels, Mapping) or not labels:
        return None
    if not all(isinstance(key, str) and isinstance(value, str) for key, value in labels.items()):
        return None
    return {str(key): str(value) for key, value in labels.items()}
