"""Where WorkloadGroups and the entries of joined machines are kept: the lab's folder or the Kubernetes API.

Everything is raw objects; a change names the version it rests on, so that of two who spend one ticket only one can.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

from ambient.errors import Refused, Unavailable
from ambient.kube.api.client import ApiClient
from ambient.kube.api.failure import ApiInvalid, ApiRefused, Conflict, NotThere
from ambient.kube.folder import ObjectFolder
from ambient.kube.objects import parse_object, record_key, resources
from ambient.kube.source import KUBERNETES

Object = dict[str, Any]
_T = TypeVar("_T")


class EntryStore(Protocol):
    async def read(self, kind: str, namespace: str, name: str) -> Object | None:
        """A WorkloadGroup or WorkloadEntry as it is now; None when there is none. Raises Unavailable."""
        ...

    async def annotate(self, found: Object, annotations: Mapping[str, str | None]) -> None:
        """Change annotations of an object as it was `read`; raises Refused when it has changed since, Unavailable."""
        ...

    async def create(self, entry: Object) -> None:
        """Raises Refused when there is one of that name, InvalidInput, Unavailable."""
        ...

    async def delete(self, entry: Object) -> None:
        """Delete an entry as it was `read`; nothing when it is gone. Raises Unavailable."""
        ...

    async def close(self) -> None:
        """Nothing is asked any more."""
        ...


def open_store(objects: Path, environment: Mapping[str, str]) -> EntryStore:
    """The store beside the source that AMBIENT_OBJECTS names. Raises InvalidInput."""
    return ApiStore(ApiClient.open(environment)) if objects == KUBERNETES else FolderStore(objects)


class FolderStore:
    """The lab's. Only one control plane writes; nothing is awaited between reading and writing."""

    def __init__(self, objects: Path) -> None:
        self._folder = ObjectFolder(objects)

    async def read(self, kind: str, namespace: str, name: str) -> Object | None:
        return self._folder.stored(record_key(kind, namespace, name))

    async def annotate(self, found: Object, annotations: Mapping[str, str | None]) -> None:
        metadata = found["metadata"]
        now = self._folder.stored(record_key(found["kind"], metadata["namespace"], metadata["name"]))
        if now != found:
            raise Refused(f"{found['kind']} {metadata['namespace']}/{metadata['name']}", why="it was changed meanwhile")
        kept = {**(metadata.get("annotations") or {}), **annotations}
        kept = {key: value for key, value in kept.items() if value is not None}
        self._folder.put([parse_object({**found, "metadata": {**metadata, "annotations": kept}}, "join")])

    async def create(self, entry: Object) -> None:
        record = parse_object(entry, "join")
        if self._folder.stored(record.key) is not None:
            raise Refused(f"WorkloadEntry {record.namespace}/{record.name}", why="there is one already")
        self._folder.put([record])

    async def delete(self, entry: Object) -> None:
        metadata = entry["metadata"]
        key = record_key(entry["kind"], metadata["namespace"], metadata["name"])
        if (self._folder.stored(key) or {}).get("metadata", {}).get("uid") == metadata["uid"]:
            self._folder.delete([key])

    async def close(self) -> None:
        """There is nothing open."""


class ApiStore:
    """A cluster's."""

    def __init__(self, api: ApiClient) -> None:
        self._api = api

    async def read(self, kind: str, namespace: str, name: str) -> Object | None:
        try:
            return await _asked(self._api.get(resources(kind)[0], name, namespace))
        except NotThere as error:
            if not error.reason:  # The kind is not served (yet): nothing is known of the object.
                raise Unavailable("the Kubernetes API does not serve", error.where, error.why) from None
            return None

    async def annotate(self, found: Object, annotations: Mapping[str, str | None]) -> None:
        metadata = found["metadata"]
        body = {"metadata": {"annotations": dict(annotations), "resourceVersion": metadata["resourceVersion"]}}
        try:
            await _asked(self._api.patch(resources(found["kind"])[0], metadata["name"], body, metadata["namespace"]))
        except Conflict as error:
            raise Refused(error.what, error.where, "it was changed meanwhile") from None

    async def create(self, entry: Object) -> None:
        await self._api.create(resources("WorkloadEntry")[0], entry, entry["metadata"]["namespace"])

    async def delete(self, entry: Object) -> None:
        metadata = entry["metadata"]
        try:
            place = resources("WorkloadEntry")[0]
            await _asked(self._api.delete(place, metadata["name"], metadata["namespace"], uid=metadata["uid"]))
        except (NotThere, Conflict):
            return

    async def close(self) -> None:
        await self._api.close()


async def _asked(answer: Awaitable[_T]) -> _T:
    """What the API server answered. That it will not answer *us* says nothing about who asked us: a machine that hears
    that it is refused takes it for the end of its membership."""
    try:
        return await answer
    except (NotThere, Conflict):
        raise
    except (ApiRefused, ApiInvalid) as error:
        raise Unavailable("the Kubernetes API does not let us", error.where, error.why) from None
