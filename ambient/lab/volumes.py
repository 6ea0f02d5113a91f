"""ConfigMaps as files in a pod: which volumes a container mounts, and where their files lie on the machine.

Only volumes of kind `configMap` are laid over the machine's own folders; a mount path has to be a folder there. As
with a real kubelet the pod waits for its ConfigMaps; unlike one, a pod keeps the texts that it started with.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ambient.errors import InvalidInput
from ambient.kube import syntax
from ambient.kube.objects import ConfigMap, Pod, Records


@dataclass(frozen=True, slots=True)
class Mount:
    """`source` is a folder of files, `path` the folder of the machine that it is laid over."""

    source: Path
    path: str


def config_maps(pod: Pod) -> Mapping[str, str]:
    """Names of ConfigMaps by volume name. Raises InvalidInput for a volume that is not written as Kubernetes has it."""
    found: dict[str, str] = {}
    for index, volume in enumerate(_list(pod, "spec.volumes", pod.raw["spec"].get("volumes"))):
        source = volume.get("configMap")
        if source is None:
            continue
        if not isinstance(source, dict) or source.keys() - {"name", "defaultMode"}:
            raise InvalidInput(_title(pod), f"spec.volumes[{index}].configMap", "only its name is supported")
        name, wanted = str(volume.get("name", "")), str(source.get("name", ""))
        if syntax.dns_label(name) or syntax.dns_subdomain(wanted):
            raise InvalidInput(_title(pod), f"spec.volumes[{index}]", "expected a name and configMap.name")
        found[name] = wanted
    return found


def mounts(pod: Pod, container: str, folder: Path) -> tuple[Mount, ...]:
    """What a container mounts, from the pod's own `folder`; raises InvalidInput."""
    known = config_maps(pod)
    own: dict[str, Any] = next((c for c in pod.raw["spec"]["containers"] if c.get("name") == container), {})
    where = f"spec.containers[{container}].volumeMounts"
    wanted = []
    for entry in _list(pod, where, own.get("volumeMounts")):
        name, path = str(entry.get("name", "")), entry.get("mountPath")
        if name not in known:
            continue
        if not isinstance(path, str) or not path.startswith("/") or entry.keys() & {"subPath", "subPathExpr"}:
            raise InvalidInput(_title(pod), where, "expected an absolute mountPath and no subPath")
        wanted.append(Mount(folder / "volumes" / name, path))
    return tuple(wanted)


def missing(pod: Pod, records: Records) -> list[str]:
    """ConfigMaps that the pod needs and that are not there."""
    names = config_maps(pod).values()
    return sorted(name for name in names if records.find(ConfigMap, pod.namespace, name) is None)


def write(pod: Pod, records: Records, folder: Path) -> None:
    """The files of every ConfigMap volume into the pod's `folder`; none may be missing."""
    for volume, name in config_maps(pod).items():
        found = records.find(ConfigMap, pod.namespace, name)
        target = folder / "volumes" / volume
        target.mkdir(parents=True, exist_ok=True)
        for key, text in (found.data if found else {}).items():
            (target / key).write_text(text, encoding="utf-8")


def _list(pod: Pod, where: str, value: object) -> list[dict[str, Any]]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise InvalidInput(_title(pod), where, "expected a list of mappings")
    return value


def _title(pod: Pod) -> str:
    return f"pod {pod.namespace}/{pod.name}"
