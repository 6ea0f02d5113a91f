"""One pod and its namespace as they are stored now, past every cache: asked when a pod starts and a watch may lag."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

from ambient.errors import InvalidInput
from ambient.kube.api.client import ApiClient
from ambient.kube.api.failure import NotThere
from ambient.kube.folder import ObjectFolder
from ambient.kube.objects import Namespace, Pod, parse_object, resources


class Fresh(Protocol):
    async def pod(self, namespace: str, name: str) -> Pod | None:
        """None when there is none. Raises InvalidInput when it cannot be read, Unavailable."""

    async def namespace(self, name: str) -> Namespace | None: ...


class FromFolder:
    def __init__(self, objects: Path) -> None:
        self._folder = ObjectFolder(objects)

    async def pod(self, namespace: str, name: str) -> Pod | None:
        return self._folder.records().find(Pod, namespace, name)

    async def namespace(self, name: str) -> Namespace | None:
        return self._folder.records().find(Namespace, "", name)


class FromApi:
    def __init__(self, client: ApiClient) -> None:
        self._client = client

    async def pod(self, namespace: str, name: str) -> Pod | None:
        found = await self._get("Pod", namespace, name)
        return found if isinstance(found, Pod) else None

    async def namespace(self, name: str) -> Namespace | None:
        found = await self._get("Namespace", "", name)
        return found if isinstance(found, Namespace) else None

    async def _get(self, kind: str, namespace: str, name: str) -> object:
        resource = resources(kind)[0]
        try:
            raw = await self._client.get(resource, name, namespace)
        except NotThere:
            return None
        if not isinstance(raw.get("metadata"), dict):
            raise InvalidInput("Kubernetes API", resource.path(namespace, name), "the answer has no metadata")
        return parse_object(
            {"kind": kind, "apiVersion": resource.group_version, **raw}, "Kubernetes API", observed=True
        )
