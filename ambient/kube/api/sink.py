"""Annotations and conditions written to objects that others own, through a bounded queue that keeps only the newest.

An annotation is a merge patch bound to the object's uid. Conditions go to the status subresource: what is there is
read, our types in it are replaced, everybody else's stay, and the result is written only if nothing has changed since
(custom resources keep conditions in a plain list, so a patch of a single one does not exist for all of them). What
somebody writes over ours is left so until we have something new to say: two writers that correct each other never end.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ambient.errors import MeshError
from ambient.kube.api.client import FIELD_MANAGER, ApiClient
from ambient.kube.api.failure import ApiUnavailable, Conflict, NotThere
from ambient.kube.networking import Gateway, ServiceEntry, TypedAddress
from ambient.kube.records import Condition, Record
from ambient.kube.resource import Resource
from ambient.kube.routing import CONTROLLER, GRPCRoute, HTTPRoute, TCPRoute, TLSRoute
from ambient.kube.status_values import (
    AncestorStatus,
    ListenerStatus,
    ParentStatus,
    addresses_written,
    ancestors_written,
    listeners_written,
    parents_written,
    timed,
)

OWN_TYPES: Final = frozenset(
    {
        *("ZtunnelAccepted", "WaypointAccepted", "ambient.mesh/Accepted", "ambient.mesh/Enforced"),
        *("istio.io/WaypointBound", "istio.io/WaypointMissing", "istio.io/VisibilityApplied"),
        *("Accepted", "Programmed", "ResolvedRefs", "ambient.mesh/Configured", "InsecureFrontendValidationMode"),
        *("ambient.mesh/ProviderFound", "ambient.mesh/KeysFetched", "ambient.mesh/TLSOriginated"),
        *("ambient.mesh/LimitsCounted", "ambient.mesh/HostsServed", "ambient.mesh/EndpointsAllowed"),
    }
)
"""Condition types that this project writes (Istio's, the Gateway API's of its waypoints, and its own); of any other
nothing is ever changed."""
RATE: Final = 50.0
"""Writes a second."""
_ROUTES: Final = frozenset(one.kind for one in (HTTPRoute, GRPCRoute, TCPRoute, TLSRoute))
_ATTEMPTS: Final = 6
_LONGEST_S: Final = 30.0

_log = logging.getLogger("ambient.kube.api.status")


@dataclass(slots=True)
class _Words:
    """What is to be said of one object. None: nothing was ever said of that. `told`: the generation that `listeners`,
    `parents` or `ancestors` were said of."""

    uid: str
    generation: int = 0
    annotations: dict[str, str | None] = field(default_factory=dict)
    conditions: tuple[Condition, ...] | None = None
    addresses: tuple[tuple[str, str], ...] | None = None
    reached: tuple[TypedAddress, ...] | None = None
    listeners: tuple[ListenerStatus, ...] | None = None
    parents: tuple[ParentStatus, ...] | None = None
    told: int = -1
    ancestors: tuple[AncestorStatus, ...] | None = None
    attempts: int = 0


class ApiSink:
    """`look(key)`: the object as it is known; `place(kind)`: where the API has it; `allowed()`: whether we are the one
    who writes; `generation(key)`: of the newest version, which may be one that is refused. `run` writes; `resume` when
    `allowed` may have become true."""

    def __init__(
        self,
        client: ApiClient,
        look: Callable[[str], Record | None],
        place: Callable[[str], Resource],
        allowed: Callable[[], bool],
        *,
        generation: Callable[[str], int] | None = None,
        rate: float = RATE,
    ) -> None:
        self._client = client
        self._look = look
        self._place = place
        self._allowed = allowed
        self._generation = generation
        self._pause_s = 1 / rate
        self._first_s = 10 / rate
        self._words: dict[str, _Words] = {}
        self._queue: dict[str, None] = {}
        self._wake = asyncio.Event()
        self.written = 0
        self.failed = 0

    # --- what is to be said (StatusSink)

    def annotate(self, target: Record | str, annotations: Mapping[str, str | None]) -> None:
        key, words = self._about(target)
        words.annotations.update(annotations)
        self._enqueue(key)

    def conditions(self, target: Record | str, conditions: Iterable[Condition]) -> None:
        key, words = self._about(target)
        words.conditions = tuple(conditions)
        self._enqueue(key)

    def addresses(self, target: Record, addresses: Sequence[tuple[str, str]]) -> None:
        key, words = self._about(target)
        words.addresses = tuple(addresses)
        self._enqueue(key)

    def gateway_addresses(self, target: Record, addresses: Sequence[TypedAddress]) -> None:
        key, words = self._about(target)
        words.reached = tuple(addresses)
        self._enqueue(key)

    def gateway_listeners(self, target: Record, listeners: Sequence[ListenerStatus]) -> None:
        key, words = self._about(target)
        if (words.listeners, words.told) != (tuple(listeners), words.generation):
            words.listeners, words.told = tuple(listeners), words.generation
            self._enqueue(key)

    def route_parents(self, target: Record, parents: Sequence[ParentStatus]) -> None:
        key, words = self._about(target)
        if (words.parents, words.told) != (tuple(parents), words.generation):
            words.parents, words.told = tuple(parents), words.generation
            self._enqueue(key)

    def policy_ancestors(self, target: Record, ancestors: Sequence[AncestorStatus]) -> None:
        key, words = self._about(target)
        if (words.ancestors, words.told) != (tuple(ancestors), words.generation):
            words.ancestors, words.told = tuple(ancestors), words.generation
            self._enqueue(key)

    def forget(self, target: Record | str) -> None:
        key, words = self._about(target)
        words.annotations = dict.fromkeys(words.annotations)
        words.conditions = ()
        words.parents = () if words.parents else None
        self._enqueue(key)

    def observed(self, revision: int) -> None:
        """Nobody asks an API server how far we are: `/sync` tells."""

    def resume(self) -> None:
        """Look again whether what is to be said is said: we may write now."""
        self._queue.update(dict.fromkeys(self._words))
        self._wake.set()

    @property
    def waiting(self) -> int:
        """How many objects wait to be written."""
        return len(self._queue)

    def _about(self, target: Record | str) -> tuple[str, _Words]:
        key = target if isinstance(target, str) else target.key
        record = self._look(key) if isinstance(target, str) else target
        uid = record.uid if record is not None else ""
        words = self._words.get(key)
        if words is None or (uid and words.uid != uid):
            words = self._words[key] = _Words(uid)
        if self._generation is not None:
            words.generation = self._generation(key)
        elif record is not None:
            words.generation = record.generation
        return key, words

    def _enqueue(self, key: str) -> None:
        self._queue[key] = None
        self._wake.set()

    # --- saying it

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue and self._allowed():
                key = next(iter(self._queue))
                del self._queue[key]
                if await self._say(key):
                    await asyncio.sleep(self._pause_s)

    async def _say(self, key: str) -> bool:
        """Write what is not yet so; gives whether the server was asked. Errors end here."""
        words = self._words.get(key)
        if words is None:
            return False
        try:
            asked = await self._write(key, words)
        except NotThere:
            self._words.pop(key, None)
            return True
        except MeshError as error:
            if self._same_object(key, words):
                self._failed(key, words, error)
            return True
        words.attempts = 0
        if self._look(key) is None:
            self._words.pop(key, None)
        return asked

    def _failed(self, key: str, words: _Words, error: MeshError) -> None:
        """Try again later, behind everything else, unless the server has refused for good."""
        words.attempts += 1
        final = not isinstance(error, Conflict | ApiUnavailable)
        if final or words.attempts == _ATTEMPTS:
            self.failed += 1
            _log.error("cannot write the status of %s%s: %s", key, "" if final else " yet", error)
        if not final:
            asked_s = error.retry_after_s if isinstance(error, ApiUnavailable) else 0.0
            wait_s = self._first_s * 2.0 ** min(words.attempts - 1, 12)
            asyncio.get_running_loop().call_later(min(max(wait_s, asked_s), _LONGEST_S), self._again, key, words)

    def _again(self, key: str, words: _Words) -> None:
        if self._words.get(key) is words:
            self._enqueue(key)

    def _same_object(self, key: str, words: _Words) -> bool:
        record = self._look(key)
        return self._words.get(key) is words and (record is None or record.uid == words.uid)

    async def _write(self, key: str, words: _Words) -> bool:
        kind, namespace, name = key.split("/", 2)
        where = "" if namespace == "_" else namespace
        place, record = self._place(kind), self._look(key)
        wrote = False
        current = record.annotations if record is not None else {}
        news = {n: v for n, v in words.annotations.items() if record is None or current.get(n) != v}
        if news:
            # The API server refuses when the object of that name is another one by now: a uid cannot change.
            bound = {"uid": words.uid} if words.uid else {}
            # A pod's annotations can be written with its status, by whoever may not change the pod itself.
            part = "status" if kind == "Pod" else ""
            await self._client.patch(place, name, {"metadata": {**bound, "annotations": news}}, where, subresource=part)
            wrote = True
        if words.conditions is not None and not _said(record, words):
            await self._write_conditions(place, name, where, words)
            wrote = True
        if words.addresses is not None and isinstance(record, ServiceEntry) and not _given(record, words.addresses):
            given = [{"host": host, "value": address} for host, address in words.addresses]
            bound = {"uid": words.uid} if words.uid else {}
            body = {"metadata": bound, "status": {"addresses": given}}
            await self._client.patch(place, name, body, where, subresource="status")
            wrote = True
        if words.reached is not None and isinstance(record, Gateway) and record.assigned != words.reached:
            given = addresses_written(words.reached)
            body = {"metadata": {"uid": words.uid} if words.uid else {}, "status": {"addresses": given}}
            await self._client.patch(place, name, body, where, subresource="status")
            wrote = True
        if any(one is not None for one in (words.listeners, words.parents, words.ancestors)):
            wrote |= await self._write_lists(place, name, where, words)
        self.written += wrote
        return wrote

    async def _write_lists(self, place: Resource, name: str, namespace: str, words: _Words) -> bool:
        """What is said of listeners and for gateways, where that is not there yet."""
        content = await self._client.get(place, name, namespace)
        metadata = content.get("metadata") or {}
        if words.uid and metadata.get("uid") != words.uid:
            return True
        status = content.get("status") or {}
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        news: dict[str, Any] = {}
        if words.listeners is not None:
            before = status.get("listeners") or []
            news["listeners"] = listeners_written(words.listeners, before, words.generation, now)
        if words.parents is not None:
            before = status.get("parents") or []
            news["parents"] = parents_written(words.parents, before, words.generation, now)
        if words.ancestors is not None:
            before = status.get("ancestors") or []
            news["ancestors"] = ancestors_written(words.ancestors, before, words.generation, now)
        news = {field: value for field, value in news.items() if value != (status.get(field) or [])}
        if news:
            body = {"metadata": {"resourceVersion": metadata.get("resourceVersion")}, "status": news}
            await self._client.patch(place, name, body, namespace, subresource="status")
        return True

    async def _write_conditions(self, place: Resource, name: str, namespace: str, words: _Words) -> None:
        content = await self._client.get(place, name, namespace)
        metadata = content.get("metadata") or {}
        if words.uid and metadata.get("uid") != words.uid:
            return
        status = content.get("status") or {}
        wanted = words.conditions or ()
        if not wanted and not _ours(metadata):
            return
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        if content.get("kind") in _ROUTES:
            parents = told_parents(content, wanted, words.generation, now)
            if parents != (status.get("parents") or []):
                bound = {"resourceVersion": metadata.get("resourceVersion")}
                body = {"metadata": bound, "status": {"parents": parents}}
                await self._client.patch(place, name, body, namespace, subresource="status")
            return
        listed = [entry for entry in status.get("conditions") or [] if isinstance(entry, dict)]
        after = merged_conditions(listed, wanted, words.generation, now)
        if after != listed:
            body = {
                "metadata": {"resourceVersion": metadata.get("resourceVersion")},
                "status": {"conditions": after},
            }
            await self._client.patch(place, name, body, namespace, subresource="status")


def told_parents(
    route: Mapping[str, Any], wanted: tuple[Condition, ...], generation: int, now: str
) -> list[dict[str, Any]]:
    """status.parents of a route: other controllers' as they are, and of each Service it is on the same conditions."""
    listed = [one for one in (route.get("status") or {}).get("parents") or [] if isinstance(one, dict)]
    before = {str(one.get("parentRef")): one for one in listed if one.get("controllerName") == CONTROLLER}
    ours = []
    for ref in (route.get("spec") or {}).get("parentRefs") or []:
        if not wanted or not isinstance(ref, dict) or ref.get("kind") != "Service":
            continue
        known = before.get(str(ref), {}).get("conditions") or []
        conditions = merged_conditions(known, wanted, generation, now)
        ours.append({"parentRef": ref, "controllerName": CONTROLLER, "conditions": conditions})
    return [one for one in listed if one.get("controllerName") != CONTROLLER] + ours


def merged_conditions(
    listed: list[dict[str, Any]], wanted: tuple[Condition, ...], generation: int, now: str
) -> list[dict[str, Any]]:
    """`listed` with our types replaced by `wanted`; the time of transition is kept where the status stays.

    `generation`: that of the object we speak about, 0 when it has none.
    """
    ours = timed(wanted, listed, generation, now)
    return [entry for entry in listed if entry.get("type") not in OWN_TYPES] + ours


def _said(record: Record | None, words: _Words) -> bool:
    """Whether the object says this already, of this generation, and nothing else of our types."""
    conditions = words.conditions or ()
    if record is None:
        return not conditions
    ours = {c.type: c for c in record.conditions if c.type in OWN_TYPES}
    of_now = not words.generation or all(c.generation == words.generation for c in ours.values())
    return of_now and ours == {c.type: c for c in conditions}


def _given(entry: ServiceEntry, addresses: tuple[tuple[str, str], ...]) -> bool:
    return tuple((host, str(address)) for host, address in entry.allocated) == addresses


def _ours(metadata: Mapping[str, Any]) -> bool:
    """Whether we have ever written this object's status."""
    fields = metadata.get("managedFields")
    return isinstance(fields, list) and any(
        isinstance(entry, dict) and entry.get("manager") == FIELD_MANAGER and entry.get("subresource") == "status"
        for entry in fields
    )
