"""What `apply` does to one object, as kubectl and the API server do it: create, three-way merge, or refuse. Pure.

The last applied text is kept in kubectl's own annotation, so labels that `label` put on an object survive the next
apply of its file, while labels that left the file go.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from ambient.errors import Refused
from ambient.kube.objects import Pod, Record, Service, parse_object, resources
from ambient.lab import volumes

LAST_APPLIED: Final = "kubectl.kubernetes.io/last-applied-configuration"
_SERVER_METADATA: Final = frozenset(
    {
        "uid",
        "resourceVersion",
        "generation",
        "creationTimestamp",
        "deletionTimestamp",
        "managedFields",
        "selfLink",
    }
)
_POD_MUTABLE: Final = ("tolerations", "activeDeadlineSeconds")
_SERVICE_ALLOCATED: Final = ("clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy")
_NODE_ALLOCATED: Final = ("podCIDR", "podCIDRs")


def shown(record: Record) -> str:
    """An object as kubectl names it in its output."""
    group = resources(record.kind)[0].group
    return f"{record.kind.lower()}{f'.{group}' if group else ''}/{record.name}"


def desired(record: Record) -> dict[str, Any]:
    """The object as the user wrote it: without what only the server says."""
    raw: dict[str, Any] = json.loads(json.dumps(dict(record.raw)))
    raw.pop("status", None)
    for name in _SERVER_METADATA:
        raw["metadata"].pop(name, None)
    if record.namespace:
        raw["metadata"]["namespace"] = record.namespace
    (raw["metadata"].get("annotations") or {}).pop(LAST_APPLIED, None)
    return raw


def stamped(raw: Mapping[str, Any], applied: Mapping[str, Any]) -> dict[str, Any]:
    """`raw` with a note of what was applied."""
    metadata = dict(raw["metadata"])
    note = json.dumps(applied, sort_keys=True, separators=(",", ":"))
    metadata["annotations"] = {**(metadata.get("annotations") or {}), LAST_APPLIED: note}
    return {**raw, "metadata": metadata}


def merge(live: Mapping[str, Any], new: Mapping[str, Any], kind: str) -> dict[str, Any]:
    """The stored object after `new` is applied over `live` (both raw); raises Refused for what may not change."""
    before = _last_applied(live)
    metadata = dict(live["metadata"])
    for field in ("labels", "annotations"):
        old = (before.get("metadata") or {}).get(field) or {}
        kept = {k: v for k, v in (metadata.get(field) or {}).items() if k not in old or k == LAST_APPLIED}
        metadata[field] = {**kept, **(new["metadata"].get(field) or {})}
        if not metadata[field]:
            del metadata[field]
    metadata |= {field: value for field, value in new["metadata"].items() if field not in ("labels", "annotations")}
    result = {**live, **new, "metadata": metadata}
    for field in before:
        if field not in new and field not in ("metadata", "status"):
            result.pop(field, None)
    _carry_allocated(live, result, kind)
    _check_immutable(live, result, kind)
    return result


def _last_applied(live: Mapping[str, Any]) -> Mapping[str, Any]:
    text = (live["metadata"].get("annotations") or {}).get(LAST_APPLIED)
    try:
        value = json.loads(text) if text else {}
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _carry_allocated(live: Mapping[str, Any], result: dict[str, Any], kind: str) -> None:
    """Keep what was chosen for the user where the file leaves it open."""
    fields = {"Pod": ("nodeName",), "Service": _SERVICE_ALLOCATED, "Node": _NODE_ALLOCATED}.get(kind, ())
    if not fields:
        return
    old, spec = live.get("spec") or {}, dict(result.get("spec") or {})
    headless_now = kind == "Service" and (spec.get("clusterIP") or spec.get("type") == "ExternalName")
    for field in fields:
        if field in old and spec.get(field) in (None, "", []) and not headless_now:
            spec[field] = old[field]
    result["spec"] = spec


def _check_immutable(live: Mapping[str, Any], result: Mapping[str, Any], kind: str) -> None:
    old, new = live.get("spec") or {}, result.get("spec") or {}
    if kind == "Pod":
        path = _difference(_comparable_pod(old), _comparable_pod(new), "spec")
        if path:
            raise Refused(
                path,
                why="Forbidden: pod updates may not change fields other than spec.containers[*].image, "
                "spec.activeDeadlineSeconds and spec.tolerations (delete the pod first)",
            )
        wanted = [(raw["metadata"].get("annotations") or {}).get("ambient.mesh/pod-ips") for raw in (live, result)]
        if wanted[0] != wanted[1]:
            raise Refused(
                "metadata.annotations[ambient.mesh/pod-ips]", why="a pod's addresses may not change (delete it first)"
            )
    if kind == "Service":
        for field in ("clusterIP", "clusterIPs"):
            if old.get(field) and new.get(field) != old.get(field):
                raise Refused(f"spec.{field}", why="Invalid value: may not change once set (delete the service first)")
    if kind == "Node" and any(new.get(field) != old.get(field) for field in _NODE_ALLOCATED):
        raise Refused("spec.podCIDRs", why="a node's pod range is given by the lab")


def _comparable_pod(spec: Mapping[str, Any]) -> dict[str, Any]:
    kept = {k: v for k, v in spec.items() if k not in _POD_MUTABLE}
    kept["containers"] = [{k: v for k, v in c.items() if k != "image"} for c in spec.get("containers") or []]
    return kept


def _difference(old: Any, new: Any, path: str) -> str:
    """The path of the first difference, "" when there is none."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted(old.keys() | new.keys()):
            found = _difference(old.get(key), new.get(key), f"{path}.{key}")
            if found:
                return found
        return ""
    if isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for index, (one, other) in enumerate(zip(old, new, strict=True)):
            found = _difference(one, other, f"{path}[{index}]")
            if found:
                return found
        return ""
    return "" if old == new else path


def labelled(
    live: Mapping[str, Any], record: Record, changes: Iterable[str], *, overwrite: bool = False
) -> dict[str, Any]:
    """`live` with KEY=VALUE set and KEY- removed; raises InvalidInput (from the parser) for an invalid label, Refused
    for one that has another value, unless it is to `overwrite`."""
    labels = dict((live["metadata"].get("labels") or {}).items())
    for change in changes:
        key, separator, value = change.partition("=")
        if separator:
            if labels.get(key, value) != value and not overwrite:
                raise Refused(
                    f"{record.kind} {record.name}",
                    f"metadata.labels[{key}]",
                    f"is {labels[key]!r}; --overwrite changes it",
                )
            labels[key] = value
        else:
            labels.pop(change.removesuffix("-"), None)
    raw = {**live, "metadata": {**live["metadata"], "labels": labels}}
    parse_object(raw, "label")
    return raw


def check_pod(pod: Pod) -> None:
    """Raises Refused or InvalidInput for what a lab cannot run."""
    spec = pod.raw["spec"]
    for container in pod.containers:
        volumes.mounts(pod, container.name, Path())
    for field in ("initContainers", "ephemeralContainers"):
        if spec.get(field):
            raise Refused(f"spec.{field}", why="not supported: the lab runs containers only")
    for index, container in enumerate(pod.containers):
        if not container.command:
            raise Refused(
                f"spec.containers[{index}].command", why="is required: the lab has no images, it runs the machine's own"
            )


def families(service: Service) -> tuple[int, ...]:
    """The IP versions a Service gets addresses of; () for headless and ExternalName. Without a word: one, IPv4."""
    if service.headless or service.type == "ExternalName":
        return ()
    named = tuple({"IPv4": 4, "IPv6": 6}[family] for family in service.ip_families)
    if family_policy(service) == "SingleStack":
        return named[:1] or (4,)
    return named if len(named) == 2 else (*named, *(v for v in (4, 6) if v not in named))


def family_policy(service: Service) -> str:
    """ipFamilyPolicy, as Kubernetes fills it in: what names two families, or two addresses, needs both."""
    both = len(service.ip_families) == 2 or len(service.cluster_ips) == 2
    return service.ip_family_policy or ("RequireDualStack" if both else "SingleStack")
