"""Takes out of an object, before it is parsed, what nothing here reads: that makes reading a large cluster cheap, and
a pod with something unheard-of in a volume is a pod like any other. Pure.

Only of kinds whose fields cannot restrict anything: policies are never touched.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

_METADATA: Final = ("managedFields", "selfLink", "finalizers")
_LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"
_POD_SPEC: Final = (
    "nodeName",
    "serviceAccountName",
    "serviceAccount",
    "hostNetwork",
    "hostname",
    "subdomain",
    "restartPolicy",
)
_POD_STATUS: Final = ("phase", "podIP", "podIPs", "hostIP", "hostIPs")
_CONTAINER: Final = ("name", "ports")


def slim(kind: str, content: Mapping[str, Any]) -> Mapping[str, Any]:
    """The object without what is never read. Anything of an unexpected type stays, for the parser to refuse."""
    result = dict(content)
    metadata = content.get("metadata")
    if isinstance(metadata, Mapping):
        kept = {name: value for name, value in metadata.items() if name not in _METADATA}
        annotations = kept.get("annotations")
        if isinstance(annotations, Mapping) and _LAST_APPLIED in annotations:
            kept["annotations"] = {name: value for name, value in annotations.items() if name != _LAST_APPLIED}
        result["metadata"] = kept
    spec, status = content.get("spec"), content.get("status")
    if kind == "Pod":
        if isinstance(spec, Mapping):
            result["spec"] = {**_only(spec, _POD_SPEC), "containers": _containers(spec.get("containers"))}
        if isinstance(status, Mapping):
            result["status"] = {**_only(status, _POD_STATUS), "conditions": _readiness(status.get("conditions"))}
    elif kind == "Node" and isinstance(status, Mapping):
        result["status"] = _only(status, ("addresses",))
    elif kind == "Namespace":
        result.pop("spec", None)
    elif kind == "ServiceAccount":
        result.pop("secrets", None)
        result.pop("imagePullSecrets", None)
    return result


def _only(content: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: content[name] for name in names if name in content}


def _readiness(given: Any) -> Any:
    """Of a pod's many conditions the one that anybody here asks for."""
    if not isinstance(given, list):
        return given
    return [item for item in given if not isinstance(item, Mapping) or item.get("type") == "Ready"]


def _containers(given: Any) -> Any:
    if not isinstance(given, list):
        return given
    return [_only(item, _CONTAINER) if isinstance(item, Mapping) else item for item in given]
