"""The roots that are trusted, in a ConfigMap of every namespace: made, kept right, and never taken from anybody else.

One replica writes (the one that leads), at a bounded rate; a new namespace and an edited or deleted ConfigMap are
served at once.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from ambient.control.root_plan import SYSTEM, Wanted, inherited, is_ours, is_right
from ambient.errors import MeshError
from ambient.kube.api.client import ApiClient
from ambient.kube.api.failure import Conflict, Forbidden, NotThere
from ambient.kube.api.follow import Follower
from ambient.kube.api.listwatch import Change, ListWatch, Pace
from ambient.kube.records import Namespace, Records
from ambient.kube.resource import Resource
from ambient.waking import woken

CONFIG_MAPS: Final = Resource("v1", "configmaps")
PER_SECOND: Final = 20.0
_AGAIN_S: Final = 5.0
_LOOK_S: Final = 2.0

_log = logging.getLogger("ambient.control.roots")


@dataclass(frozen=True, slots=True)
class _There:
    """A ConfigMap that is there: whose it is, what it says, its version."""

    ours: bool
    content: Mapping[str, Any]
    version: str


class RootBundles:
    """`run` it beside the server. `wanted` is asked each time; call `look` when it gives something else."""

    def __init__(
        self,
        api: ApiClient,
        name: str,
        wanted: Callable[[], Wanted],
        leading: Callable[[], bool],
        *,
        own: str = "",
        pause_s: float = 1 / PER_SECOND,
        again_s: float = _AGAIN_S,
    ) -> None:
        """`own`: our own namespace, which comes first: what is trusted is read from there after a restart."""
        self._own = own
        self._api = api
        self._name = name
        self._wanted = wanted
        self._leading = leading
        self._pause_s = pause_s
        self._again_s = again_s
        self._namespaces: frozenset[str] = frozenset()
        self._there: dict[str, _There] = {}
        self._foreign: set[str] = set()
        self._held_back: dict[str, float] = {}
        self._due: dict[str, None] = {}
        self._wake = asyncio.Event()
        # Whose name is fixed, so that our permission can name it too.
        core = ListWatch("ConfigMap", (CONFIG_MAPS,), fields=f"metadata.name={name}", pace=Pace(), random=random.random)
        self._follower = Follower(api, core, self._take, self._wake.set)
        self.writes = 0

    @property
    def foreign(self) -> int:
        """In how many namespaces somebody else's is left alone."""
        return len(self._foreign & self._namespaces)

    @property
    def missing(self) -> int:
        """How many namespaces do not have what they should, nor somebody else's."""
        wanted = self._wanted()
        return sum(self._lacks(namespace, wanted) for namespace in self._namespaces)

    def namespaces(self, names: Collection[str]) -> None:
        """Those that are there now, without those that are going."""
        found = frozenset(names) - SYSTEM
        if found != self._namespaces:
            self._due |= dict.fromkeys(sorted(found - self._namespaces))
            self._namespaces = found
            self._wake.set()

    def look(self) -> None:
        """What is wanted, or who writes, may have changed."""
        # Whoever is due already waits for its turn; those that come now come before it.
        self._due = dict.fromkeys(sorted(self._namespaces)) | self._due
        self._wake.set()

    def hear(self, records: Records) -> None:
        """Objects changed: which namespaces are there?"""
        if records.changed is None or any(key.startswith("Namespace/") for key in records.changed):
            self.namespaces({one.name for one in records.of(Namespace) if not one.deleting})

    async def inherited(self, namespace: str) -> tuple[str, datetime] | None:
        """The roots in our own namespace's ConfigMap, and until when old ones among them are trusted.

        Raises Unavailable.
        """
        try:
            return inherited(await self._api.get(CONFIG_MAPS, self._name, namespace))
        except (NotThere, Forbidden):
            return None

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follower.run())
            group.create_task(self._write())

    async def _write(self) -> None:
        while True:
            if not await woken(self._wake, _LOOK_S):
                # The lease is ours, or a failed write is due again, without anybody saying so.
                self.look()
            self._wake.clear()
            if self._follower.core.synced:
                await self._round()

    async def _round(self) -> None:
        """See to all that are due, the newest first: a new namespace does not wait for a thousand others."""
        loop = asyncio.get_running_loop()
        wanted = self._wanted()
        while self._due and self._leading():
            namespace = self._own if self._own in self._due else next(reversed(self._due))
            del self._due[namespace]
            held_back = self._held_back.get(namespace, 0.0) > loop.time()
            if namespace not in self._namespaces or held_back or not self._lacks(namespace, wanted):
                continue
            try:
                await self._put(namespace, wanted)
                self._held_back.pop(namespace, None)
            except MeshError as error:
                self._held_back[namespace] = loop.time() + self._again_s
                _log.warning("the roots are not in namespace %s: %s", namespace, error)
            await asyncio.sleep(self._pause_s)
            wanted = self._wanted()

    def _lacks(self, namespace: str, wanted: Wanted) -> bool:
        there = self._there.get(namespace)
        return there is None or (there.ours and not is_right(there.content, wanted))

    async def _put(self, namespace: str, wanted: Wanted) -> None:
        there, content = self._there.get(namespace), wanted.content(self._name)
        try:
            if there is None:
                answer = await self._api.create(CONFIG_MAPS, content, namespace)
            else:
                extra = dict.fromkeys(key for key in there.content.get("data") or {} if key not in content["data"])
                content["data"] |= extra
                content["metadata"]["resourceVersion"] = there.version
                answer = await self._api.patch(CONFIG_MAPS, self._name, content, namespace)
        except (Conflict, NotThere):
            # Somebody was faster; the watch will show what it is now.
            return
        self.writes += 1
        self._there[namespace] = _There(True, answer, str(answer["metadata"].get("resourceVersion", "")))
        _log.info("the roots are in namespace %s", namespace)

    def _take(self, change: Change) -> None:
        namespace = change.key.split("/")[1]
        self._due[namespace] = None
        if change.content is None:
            self._there.pop(namespace, None)
            self._foreign.discard(namespace)
            return
        ours = is_ours(change.content)
        self._there[namespace] = _There(ours, change.content, change.version)
        if ours:
            self._foreign.discard(namespace)
        elif namespace not in self._foreign:
            self._foreign.add(namespace)
            _log.info("ConfigMap %s/%s is somebody else's and is left alone", namespace, self._name)
