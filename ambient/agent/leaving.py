"""Whether an agent that is told to stop is replaced, leaving everything in place, or taken off with its DaemonSet.

A node that only lost its agent for a moment must hold new pods; a node that was given up must not hold them for ever.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from ambient.errors import MeshError
from ambient.kube.api.client import ApiClient
from ambient.kube.api.failure import Forbidden, NotThere
from ambient.kube.resource import Resource

DAEMON_SETS: Final = Resource("apps/v1", "daemonsets")
AGAIN_S: Final = 0.5

log = logging.getLogger("ambient.agent.leaving")


class OwnDaemonSet:
    def __init__(self, client: ApiClient, name: str, namespace: str, *, again_s: float = AGAIN_S) -> None:
        self._client = client
        self._name = name
        self._namespace = namespace
        self._again_s = again_s
        self._seen = False

    async def look(self) -> bool:
        """Whether it is there to stay. Raises MeshError when that cannot be told."""
        found = await self._client.get(DAEMON_SETS, self._name, self._namespace)
        self._seen = True
        return not (found.get("metadata") or {}).get("deletionTimestamp")

    async def watch_over(self, every_s: float = 30.0) -> None:
        """Until it was seen: from then on a refusal to show it means that our rights went with it."""
        while not self._seen:
            try:
                await self.look()
            except MeshError as error:
                log.warning("daemonset %s/%s: %s", self._namespace, self._name, error)
                await asyncio.sleep(every_s)

    async def gone(self) -> bool:
        """It was removed, or is being removed: said twice, with a pause between. When in doubt it was not."""
        for _ in range(2):
            try:
                if await self.look():
                    return False
            except NotThere:
                pass
            except Forbidden as error:
                # Installers remove the rights in the same breath, before our process hears of it.
                if not self._seen:
                    log.warning("daemonset %s/%s: %s: taken for there", self._namespace, self._name, error)
                    return False
            except MeshError as error:
                log.warning("daemonset %s/%s: %s: taken for there", self._namespace, self._name, error)
                return False
            await asyncio.sleep(self._again_s)
        return True
