"""OCI images as plain tar archives: layers from folders, and what `ctr images import` or `docker load` take.

Everything is reproducible: the same folder gives the same octets, so a layer's digest says whether it changed.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

_LAYER: Final = "application/vnd.oci.image.layer.v1.tar"
_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
_INDEX: Final = "application/vnd.oci.image.index.v1+json"
_BLOCK: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Layer:
    """An uncompressed tar on disk and its digest (hex SHA-256)."""

    path: Path
    digest: str

    @property
    def size(self) -> int:
        return self.path.stat().st_size


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """`reference`: such as `localhost/ambient:1`; `user`: uid[:gid] or ""."""

    reference: str
    layers: tuple[Layer, ...]
    entry: Sequence[str] = ()
    command: Sequence[str] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    user: str = ""
    directory: str = "/"


def machine() -> str:
    """The architecture as images name it."""
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(os.uname().machine, os.uname().machine)


def make_layer(folder: Path, target: Path) -> Layer:
    """Write what is in `folder` to `target` as one layer: owned by root, without times, in the order of the names."""

    def anonymous(entry: tarfile.TarInfo) -> tarfile.TarInfo:
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = ""
        entry.mtime = 0
        return entry

    unfinished = target.with_name(f"{target.name}.{os.getpid()}")
    with tarfile.open(unfinished, "w", format=tarfile.GNU_FORMAT) as archive:
        for name in sorted(os.listdir(folder)):
            archive.add(folder / name, arcname=name, filter=anonymous)
    unfinished.rename(target)
    return read_layer(target)


def read_layer(path: Path) -> Layer:
    """A layer that was written before."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return Layer(path, digest.hexdigest())


def _octets(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


def _described(content: bytes, kind: str) -> dict[str, Any]:
    return {"mediaType": kind, "digest": f"sha256:{hashlib.sha256(content).hexdigest()}", "size": len(content)}


def write_archive(image: Image, target: Path) -> str:
    """Write the image to `target`; gives the digest of its manifest, `sha256:...`."""
    path = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    given = {"Entrypoint": list(image.entry), "Cmd": list(image.command), "User": image.user}
    settings: dict[str, Any] = {
        "Env": [f"{name}={value}" for name, value in {"PATH": path, **image.environment}.items()],
        "WorkingDir": image.directory,
        **{key: value for key, value in given.items() if value},
    }
    digests = [f"sha256:{layer.digest}" for layer in image.layers]
    config = _octets(
        {
            "architecture": machine(),
            "os": "linux",
            "config": settings,
            "rootfs": {"type": "layers", "diff_ids": digests},
        }
    )
    manifest = _octets(
        {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": _described(config, _CONFIG),
            "layers": [
                {"mediaType": _LAYER, "digest": digest, "size": layer.size}
                for digest, layer in zip(digests, image.layers, strict=True)
            ],
        }
    )
    described = _described(manifest, _MANIFEST)
    described["platform"] = {"architecture": machine(), "os": "linux"}
    described["annotations"] = {
        "io.containerd.image.name": image.reference,
        "org.opencontainers.image.ref.name": image.reference.rpartition(":")[2],
    }
    index = _octets({"schemaVersion": 2, "mediaType": _INDEX, "manifests": [described]})
    unfinished = target.with_name(f"{target.name}.{os.getpid()}")
    with tarfile.open(unfinished, "w") as archive:
        _add(archive, "oci-layout", _octets({"imageLayoutVersion": "1.0.0"}))
        _add(archive, "index.json", index)
        for content in (config, manifest):
            _add(archive, f"blobs/sha256/{hashlib.sha256(content).hexdigest()}", content)
        for layer in {layer.digest: layer for layer in image.layers}.values():
            archive.add(layer.path, arcname=f"blobs/sha256/{layer.digest}")
    unfinished.rename(target)
    return str(described["digest"])


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))
