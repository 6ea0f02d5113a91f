"""What Gateways stand for on a cluster: made, kept as it is wanted, and told where it cannot be made.

One replica writes (the one that leads), by server-side apply: fields that are ours are put right whoever changed them,
those of others (a number of replicas) stay. What goes with its Gateway is the garbage collector's to take away. An
object of the same name that is somebody else's is left alone: what another mesh made for the same Gateway, too, unless
the Gateway says that it may be taken over. Whoever goes on changing what is ours is answered ever more slowly.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from ambient.errors import MeshError, Refused
from ambient.kube.api.client import ApiClient
from ambient.kube.api.failure import ApiInvalid, Conflict, Forbidden, NotThere
from ambient.kube.api.follow import Follower
from ambient.kube.api.listwatch import Change, ListWatch, Pace
from ambient.kube.networking import Gateway, GatewayClass
from ambient.kube.objects import Condition, Records, record_key
from ambient.kube.resource import Resource
from ambient.waking import woken
from ambient.waypoint.deploy import GATEWAY_NAME, INGRESS_MANAGED_BY, MANAGED, MANAGED_BY

MANAGER: Final = "ambient-gateways"
"""The field manager of everything that is made here."""
PLACES: Final[Mapping[str, Resource]] = {
    "ServiceAccount": Resource("v1", "serviceaccounts"),
    "Service": Resource("v1", "services"),
    "Deployment": Resource("apps/v1", "deployments"),
}
PROGRAMMED: Final = "Programmed"
TAKE_OVER: Final = "ambient.mesh/take-over"
"""Annotation of a Gateway, "true": what another mesh made for it is ours from now on."""
_OTHERS: Final = (MANAGED_BY, "istio.io-gateway-controller")
"""What another mesh calls itself on what it makes."""
_CONCERNED: Final = (Gateway.kind, GatewayClass.kind)
PER_SECOND: Final = 20.0
_LOOK_S: Final = 2.0
_AGAIN_S: Final = 5.0
_REST_S: Final = 1.0
_LONGEST_REST_S: Final = 300.0
_FORGOTTEN_S: Final = 2 * _LONGEST_REST_S

Object = dict[str, Any]
_log = logging.getLogger("ambient.control.upkeep")


class NotOurs(Refused):
    """An object of this name is there, and is somebody else's."""


@dataclass(slots=True)
class _Kept:
    """One Gateway. `made`: what each of its objects was when we had last made it so, without status and version;
    `repairs`: how often somebody else's change of it was undone, and when last."""

    gateway: Gateway
    wanted: Sequence[Object] = ()
    made: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    repairs: dict[str, tuple[int, float]] = field(default_factory=dict)
    failure: Condition | None = None
    not_before: float = 0.0


class Upkeep:
    """`hear` each snapshot, `run` beside the server. `wanted(records, gateway)`: the objects of a Gateway of ours, in
    the order to make them, () for one that is none. `say(key)`: something new is to be said of a Gateway."""

    def __init__(
        self,
        api: ApiClient,
        wanted: Callable[[Records, Gateway], Sequence[Object]],
        leading: Callable[[], bool],
        say: Callable[[str], None],
        *,
        pause_s: float = 1 / PER_SECOND,
        again_s: float = _AGAIN_S,
        rest_s: float = _REST_S,
    ) -> None:
        self._api = api
        self._wanted = wanted
        self._leading = leading
        self._say = say
        self._pause_s = pause_s
        self._again_s = again_s
        self._rest_s = rest_s
        self._gateways: dict[str, _Kept] = {}
        self._there: dict[str, Mapping[str, Any]] = {}
        self._due: dict[str, None] = {}
        self._wake = asyncio.Event()
        self._led = False
        self._followers = [
            Follower(
                api,
                ListWatch(
                    kind,
                    (place,),
                    labels=f"{MANAGED} in ({MANAGED_BY},{INGRESS_MANAGED_BY})",
                    pace=Pace(),
                    random=random.random,
                ),
                self._take,
                self._wake.set,
            )
            for kind, place in PLACES.items()
        ]
        self.writes = 0

    # --- what is known

    def hear(self, records: Records) -> None:
        """Every snapshot."""
        changed = records.changed
        if changed is not None and not any(key.partition("/")[0] in _CONCERNED for key in changed):
            return
        before, self._gateways = self._gateways, {}
        for gateway in records.of(Gateway):
            wanted = () if gateway.deleting else self._wanted(records, gateway)
            if not wanted:
                continue
            kept = before.get(gateway.key)
            if kept is None or kept.gateway.uid != gateway.uid:
                kept = _Kept(gateway)
            self._gateways[gateway.key] = kept
            kept.gateway = gateway
            if kept.wanted != wanted:
                kept.wanted = wanted
                # What differs now is our own change, and nobody has to wait for it.
                kept.made.clear()
                kept.repairs.clear()
                kept.not_before = 0.0
                self._enqueue(gateway.key)

    def trouble(self, key: str) -> Condition | None:
        """Why a Gateway's objects are not as they should be, None when they are, or when they are not ours to make."""
        kept = self._gateways.get(key)
        if kept is None:
            return None
        return kept.failure or self._unable(kept.wanted)

    def keeps(self, key: str) -> bool:
        """Whether this Gateway's objects are ours to make."""
        return key in self._gateways

    def _unable(self, wanted: Sequence[Object]) -> Condition | None:
        """Pods that cannot even be made, as the Deployment says."""
        for one in wanted:
            content = self._there.get(_key(one), {})
            for said in (content.get("status") or {}).get("conditions") or ():
                if (said.get("type"), said.get("status")) == ("ReplicaFailure", "True"):
                    return Condition(PROGRAMMED, "False", "NoResources", f"its pods: {said.get('message', '')}"[:1000])
        return None

    def _take(self, change: Change) -> None:
        before = self._there.pop(change.key, None)
        content = change.content
        if content is not None:
            self._there[change.key] = content
        name = _gateway_of(content or {}) or _gateway_of(before or {})
        owner = f"{Gateway.kind}/{change.key.split('/')[1]}/{name}"
        kept = self._gateways.get(owner)
        if kept is None:
            return
        if content is None or _shape(content) != kept.made.get(change.key):
            self._enqueue(owner)
        elif (content.get("status") or {}) != ((before or {}).get("status") or {}):
            self._say(owner)

    def _enqueue(self, key: str) -> None:
        self._due[key] = None
        self._wake.set()

    # --- what is done

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            for follower in self._followers:
                group.create_task(follower.run())
            group.create_task(self._work())

    async def _work(self) -> None:
        while True:
            await woken(self._wake, _LOOK_S)
            self._wake.clear()
            leading, led = self._leading(), self._led
            self._led = leading
            if leading and not led:
                # Whoever wrote before us may have wanted something else.
                self._due.update(dict.fromkeys(self._gateways))
            if leading and all(follower.core.synced for follower in self._followers):
                await self._round()

    async def _round(self) -> None:
        now = asyncio.get_running_loop().time()
        for key in list(self._due):
            kept = self._gateways.get(key)
            if kept is None:
                self._due.pop(key, None)
            elif kept.not_before <= now and self._leading():
                self._due.pop(key, None)
                await self._see_to(key, kept)

    async def _see_to(self, key: str, kept: _Kept) -> None:
        failure = None
        for wanted in kept.wanted:
            try:
                await self._put(kept, wanted)
            except MeshError as error:
                failure = _told(wanted, error)
                kept.not_before = asyncio.get_running_loop().time() + self._again_s
                self._due[key] = None
                break
            await asyncio.sleep(self._pause_s)
        if failure != kept.failure:
            kept.failure = failure
            if failure is not None:
                _log.warning("%s: %s", key, failure.message)
            self._say(key)

    async def _put(self, kept: _Kept, wanted: Object) -> None:
        """Make it so. Raises NotOurs, and what the API server says."""
        metadata = wanted["metadata"]
        kind, name, namespace = wanted["kind"], metadata["name"], metadata["namespace"]
        place, key = PLACES[kind], _key(wanted)
        there = self._there.get(key)
        if there is None:
            # It may be there without our label, which is all that the watch asks for.
            try:
                there = await self._api.get(place, name, namespace)
            except NotThere:
                there = None
        if there is not None and not _ours(there, kept.gateway):
            raise NotOurs(f"{kind} {namespace}/{name}", why="is there already, and was not made for this Gateway")
        answer = await self._api.patch(place, name, wanted, namespace, form="apply", manager=MANAGER, force=True)
        if there is None or _version(there) != _version(answer):
            self.writes += 1
            _log.info("%s %s/%s is as Gateway %s wants it", kind, namespace, name, kept.gateway.name)
        if key in kept.made and (there is None or _shape(there) != _shape(answer)):
            self._rest(kept, key)
        kept.made[key] = _shape(answer)

    def _rest(self, kept: _Kept, key: str) -> None:
        """Somebody's change was undone. Once that is done at once; who changes it again and again, as another
        controller would, is not fought at his own pace."""
        now = asyncio.get_running_loop().time()
        count, last = kept.repairs.get(key, (0, now))
        count = count + 1 if now - last < _FORGOTTEN_S else 1
        kept.repairs[key] = (count, now)
        if count > 1:
            rest_s = rest_after(count, self._rest_s)
            kept.not_before = max(kept.not_before, now + rest_s)
            _log.warning("%s was changed by somebody else %d times: it is left so for %g s", key, count, rest_s)


def rest_after(repairs: int, first_s: float = _REST_S) -> float:
    """Seconds until the next repair of an object: twice as long from the second one on."""
    return min(first_s * 2.0 ** min(repairs - 2, 16), _LONGEST_REST_S)


def _key(content: Mapping[str, Any]) -> str:
    metadata = content["metadata"]
    return record_key(content["kind"], metadata["namespace"], metadata["name"])


def _gateway_of(content: Mapping[str, Any]) -> str:
    labels = (content.get("metadata") or {}).get("labels") or {}
    return str(labels.get(GATEWAY_NAME, ""))


def _version(content: Mapping[str, Any]) -> object:
    return content["metadata"].get("resourceVersion")


def _ours(content: Mapping[str, Any], gateway: Gateway) -> bool:
    """Made for this Gateway by us, as the API server notes; or by another mesh, where the Gateway gives us that."""
    metadata = content["metadata"]
    labels = metadata.get("labels") or {}
    if any(one.get("manager") == MANAGER for one in metadata.get("managedFields") or ()):
        # Two Gateways may ask for one name. A label that somebody took away is one to put back.
        return bool(labels.get(GATEWAY_NAME, gateway.name) == gateway.name)
    given = gateway.annotations.get(TAKE_OVER) == "true"
    return given and labels.get(MANAGED) in _OTHERS and labels.get(GATEWAY_NAME) == gateway.name


_PASSING: Final[Collection[str]] = frozenset({"resourceVersion", "managedFields", "generation"})


def _shape(content: Mapping[str, Any]) -> Mapping[str, Any]:
    """What of an object is somebody's will: neither its status nor what counts its changes."""
    metadata = {name: value for name, value in content["metadata"].items() if name not in _PASSING}
    return {**{name: value for name, value in content.items() if name != "status"}, "metadata": metadata}


def _told(wanted: Object, error: MeshError) -> Condition:
    reason = "Pending"
    if isinstance(error, Forbidden):
        reason = "NoResources"
    elif isinstance(error, ApiInvalid | NotOurs | Conflict):
        reason = "Invalid"
    name = f"{wanted['kind']} {wanted['metadata']['name']}"
    return Condition(PROGRAMMED, "False", reason, f"{name}: {error}"[:1000])
