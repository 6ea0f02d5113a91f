"""ConfigMaps and service account tokens as files in a pod: which volumes a container mounts, and where they lie.

They are laid over the machine's own folders; a mount path has to be a folder there. As with a real kubelet the pod
waits for its ConfigMaps; unlike one, a pod keeps the texts that it started with. The mesh's root certificate is in
every namespace.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ambient.errors import InvalidInput
from ambient.kube import syntax
from ambient.kube.objects import ConfigMap, Pod, Records
from ambient.lab.credentials import pod_token
from ambient.lab.settings import write_atomically

ROOT: Final = "istio-ca-root-cert"
"""The ConfigMap with the mesh's root certificate."""


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


def tokens(pod: Pod) -> Mapping[str, str]:
    """File names of the pod's own token by volume name. Raises InvalidInput as `config_maps`."""
    found: dict[str, str] = {}
    for index, volume in enumerate(_list(pod, "spec.volumes", pod.raw["spec"].get("volumes"))):
        projected = volume.get("projected")
        sources = projected.get("sources") if isinstance(projected, dict) else []
        for source in sources if isinstance(sources, list) else []:
            token = source.get("serviceAccountToken") if isinstance(source, dict) else None
            if token is None:
                continue
            name, path = str(volume.get("name", "")), str(token.get("path", "")) if isinstance(token, dict) else ""
            if syntax.dns_label(name) or syntax.file_key(path):
                raise InvalidInput(
                    _title(pod), f"spec.volumes[{index}].projected", "expected a name and a token's path"
                )
            found[name] = path
    return found


def mounts(pod: Pod, container: str, folder: Path) -> tuple[Mount, ...]:
    """What a container mounts, from the pod's own `folder`; raises InvalidInput."""
    known = {**config_maps(pod), **tokens(pod)}
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
    names = set(config_maps(pod).values()) - {ROOT}
    return sorted(name for name in names if records.find(ConfigMap, pod.namespace, name) is None)


def write(pod: Pod, records: Records, folder: Path, secrets: Path) -> None:
    """The files of every volume into the pod's `folder`; no ConfigMap may be missing. `secrets`: the lab's own."""
    for volume, name in config_maps(pod).items():
        found = records.find(ConfigMap, pod.namespace, name)
        root = {"root-cert.pem": (secrets / "root-cert.pem").read_text()} if name == ROOT else {}
        for key, text in (found.data if found else root).items():
            _put(folder / "volumes" / volume / key, text, 0o644)
    for volume, path in tokens(pod).items():
        _put(folder / "volumes" / volume / path, pod_token(secrets, pod), 0o600)


def _put(file: Path, text: str, mode: int) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(file, text, mode)


def _list(pod: Pod, where: str, value: object) -> list[dict[str, Any]]:
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise InvalidInput(_title(pod), where, "expected a list of mappings")
    return value


def _title(pod: Pod) -> str:
    return f"pod {pod.namespace}/{pod.name}"
