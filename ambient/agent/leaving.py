"""Whether an agent that is told to stop is replaced, leaving everything in place, or taken off with its DaemonSet.

A node that only lost its agent for a moment must hold new pods; a node that was given up must not hold them for ever.
That the API server refuses us says nothing: our token ends with our pod, also when somebody deletes it by force, and
keys and rights change. So the DaemonSet is watched while we may, and only what was seen of itself counts.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Mapping
from typing import Any, Final

from ambient.errors import MeshError
from ambient.kube.api.client import ApiClient
from ambient.kube.api.failure import Forbidden, NotThere
from ambient.kube.api.follow import Follower
from ambient.kube.api.listwatch import Change, ListWatch, Pace
from ambient.kube.resource import Resource

DAEMON_SETS: Final = Resource("apps/v1", "daemonsets")
NAMESPACES: Final = Resource("v1", "namespaces", namespaced=False)
AGAIN_S: Final = 0.5
PATIENCE_S: Final = 5.0
"""How long an open watch may take to show what happened before we were refused."""

log = logging.getLogger("ambient.agent.leaving")


class OwnDaemonSet:
    """Run `watch_over` until `gone` has answered."""

    def __init__(
        self,
        client: ApiClient,
        name: str,
        namespace: str,
        *,
        again_s: float = AGAIN_S,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._client = client
        self._name = name
        self._namespace = namespace
        self._again_s = again_s
        self._patience_s = patience_s
        self._seen_going = asyncio.Event()
        core = ListWatch(
            "DaemonSet",
            (DAEMON_SETS,),
            namespace=namespace,
            fields=f"metadata.name={name}",
            pace=Pace(),
            random=random.random,
        )
        self._follower = Follower(client, core, self._take, lambda: None)

    async def watch_over(self) -> None:
        """Until cancelled."""
        await self._follower.run()

    def _take(self, change: Change) -> None:
        if change.content is None or _ends(change.content):
            self._seen_going.set()
        else:
            self._seen_going.clear()

    async def look(self) -> bool:
        """Whether it, and the namespace it is in, are there to stay. Raises MeshError when that cannot be told."""
        found = await self._client.get(DAEMON_SETS, self._name, self._namespace)
        return not _ends(found) and not _ends(await self._client.get(NAMESPACES, self._namespace))

    async def gone(self) -> bool:
        """It was removed, or is being removed: said twice, with a pause between. When in doubt it was not."""
        for _ in range(2):
            try:
                if await self.look():
                    return False
            except NotThere:
                pass
            except Forbidden as error:
                # Installers remove our account and rights in the same breath, before our process hears of it.
                if not await self._was_seen_going():
                    return self._doubt(error)
            except MeshError as error:
                return self._doubt(error)
            await asyncio.sleep(self._again_s)
        return True

    async def _was_seen_going(self) -> bool:
        try:
            async with asyncio.timeout(self._patience_s):
                return await self._seen_going.wait()
        except TimeoutError:
            return False

    def _doubt(self, error: MeshError) -> bool:
        log.warning("daemonset %s/%s: %s: taken for there", self._namespace, self._name, error)
        return False


def _ends(content: Mapping[str, Any]) -> bool:
    return bool((content.get("metadata") or {}).get("deletionTimestamp"))
