"""Where the files of the authority are kept: a folder (lab, or a mounted `cacerts`), or a Secret that replicas share.

Only one of two simultaneous changes wins; the loser reads again.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Protocol

from ambient.ca import roots, rotation
from ambient.errors import Refused, Unavailable
from ambient.kube.api.failure import Conflict, NotThere
from ambient.kube.resource import Resource

SECRETS: Final = Resource("v1", "secrets")
REQUEST: Final = "ambient.mesh/rotate-root"
"""Annotation of the Secret (or file of the folder) by which somebody asks for a step of `ambient.ca.rotation`."""
_REQUEST_FILE: Final = "rotate"
FILES: Final = tuple(dict.fromkeys((*roots.FILES, *rotation.FILES)))


class Outrun(Refused):
    """Somebody else has changed the files since they were read."""


@dataclass(frozen=True, slots=True)
class Kept:
    """The files that are there, by name. `version` "" means that there are none. `plugged`: somebody has put an
    authority of his own there, and changes it himself."""

    files: Mapping[str, bytes]
    request: str = ""
    version: str = ""
    plugged: bool = False


class CaStore(Protocol):
    """One place with the files of an authority."""

    where: str

    async def read(self) -> Kept:
        """Raises Unavailable."""

    async def write(self, files: Mapping[str, bytes], version: str) -> None:
        """Put exactly these files there, if nobody has changed them since `version`. Raises Outrun, Unavailable."""


class FolderStore:
    """A folder of this machine. Nobody but one control plane, and people, may write there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.where = str(folder)

    async def read(self) -> Kept:
        return self.read_now()

    def read_now(self) -> Kept:
        try:
            found = {name: self._folder / name for name in FILES}
            files = {name: path.read_bytes() for name, path in found.items() if path.exists()}
            asked = self._folder / _REQUEST_FILE
            request = asked.read_text().strip() if asked.exists() else ""
        except OSError as error:
            raise Unavailable("CA folder", self.where, error.strerror or str(error)) from None
        return Kept(files, request, self.signature() if files else "", "ca-key.pem" in files)

    async def write(self, files: Mapping[str, bytes], version: str) -> None:
        self.write_now(files, version)

    def write_now(self, files: Mapping[str, bytes], version: str) -> None:
        if (self.signature() if self.read_now().files else "") != version:
            raise Outrun("CA folder", self.where, "was changed meanwhile")
        # An order in which every moment is usable: a key first, then certificates that may belong to it, what says
        # where a change stands last.
        order = (rotation.NEXT_KEY, *roots.FILES, rotation.STATE) if version else (rotation.KEY, *FILES)
        try:
            for name in dict.fromkeys(order):
                if name in files:
                    self._replace(name, files[name])
            for name in FILES:
                if name not in files:
                    (self._folder / name).unlink(missing_ok=True)
        except OSError as error:
            raise Unavailable("CA folder", self.where, error.strerror or str(error)) from None

    def signature(self) -> str:
        """Differs when the files differ."""
        found = []
        for name in (*FILES, _REQUEST_FILE):
            try:
                stat = (self._folder / name).stat()
            except OSError:
                found.append("-")
            else:
                found.append(f"{stat.st_mtime_ns}.{stat.st_size}.{stat.st_ino}")
        return " ".join(found)

    def _replace(self, name: str, content: bytes) -> None:
        fresh = self._folder / f".{name}.new"
        fresh.unlink(missing_ok=True)
        mode = 0o600 if name.endswith("-key.pem") else 0o644
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
            file.write(content)
        fresh.replace(self._folder / name)


class SecretStore:
    """A Secret of the control plane's own namespace."""

    def __init__(self, api: Any, namespace: str, name: str) -> None:
        self._api = api
        self._namespace, self._name = namespace, name
        self.where = f"Secret {namespace}/{name}"

    async def read(self) -> Kept:
        try:
            found = await self._api.get(SECRETS, self._name, self._namespace)
        except NotThere:
            return Kept({})
        except Refused as error:
            raise Unavailable("certificate authority", self.where, error.why) from None
        metadata = found.get("metadata") or {}
        files = {}
        for name, text in (found.get("data") or {}).items():
            try:
                files[name] = base64.b64decode(text, validate=True)
            except (binascii.Error, ValueError, TypeError):
                raise Unavailable("certificate authority", self.where, f"{name} is not base64") from None
        request = (metadata.get("annotations") or {}).get(REQUEST, "")
        return Kept({n: d for n, d in files.items() if n in FILES}, str(request), str(metadata.get("resourceVersion")))

    async def write(self, files: Mapping[str, bytes], version: str) -> None:
        data = {name: base64.b64encode(content).decode() for name, content in files.items()}
        try:
            if not version:
                await self._api.create(SECRETS, self._object(data), self._namespace)
                return
            absent = dict.fromkeys(name for name in FILES if name not in data)
            patch = {"metadata": {"resourceVersion": version}, "data": {**data, **absent}}
            await self._api.patch(SECRETS, self._name, patch, self._namespace)
        except (Conflict, NotThere):
            raise Outrun("certificate authority", self.where, "was changed meanwhile") from None
        except Refused as error:
            raise Unavailable("certificate authority", self.where, error.why) from None

    def _object(self, data: Mapping[str, str]) -> dict[str, Any]:
        return {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {
                "name": self._name,
                "namespace": self._namespace,
                "labels": {"app.kubernetes.io/managed-by": "ambient-control"},
                "annotations": {"ambient.mesh/warning": "the mesh's root key: whoever can read this can be anybody"},
            },
            "type": "Opaque",
            "data": dict(data),
        }


class PluggedStore:
    """A mounted authority where there is one, else the one that we made ourselves."""

    def __init__(self, plugged: FolderStore, own: CaStore) -> None:
        self._plugged, self._own = plugged, own
        self.where = f"{plugged.where}, else {own.where}"

    async def read(self) -> Kept:
        plugged = await self._plugged.read()
        return replace(plugged, plugged=True) if plugged.files else await self._own.read()

    async def write(self, files: Mapping[str, bytes], version: str) -> None:
        await self._own.write(files, version)
