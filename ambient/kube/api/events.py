"""Events (events.k8s.io/v1): what people see under `kubectl describe` of an object, said once and not in floods.

What is said about an object again within `quiet_s` is not written again; when more is said than may be written, the
rest is left out. An event that cannot be written is lost: it is a courtesy, the log has it all.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Literal

from ambient.errors import MeshError
from ambient.kube.api.client import ApiClient
from ambient.kube.resource import Resource

EVENTS: Final = Resource("events.k8s.io/v1", "events")
LONGEST_NOTE: Final = 1024
MOST_REMEMBERED: Final = 4_096
MOST_WAITING: Final = 256

_log = logging.getLogger("ambient.kube.api.events")


@dataclass(frozen=True, slots=True)
class Regarding:
    """The object that an event is about. `namespace` is "" for cluster-wide kinds, `uid` "" when it is not known."""

    api_version: str
    kind: str
    name: str
    namespace: str = ""
    uid: str = ""

    def reference(self) -> dict[str, str]:
        found = {"apiVersion": self.api_version, "kind": self.kind, "name": self.name}
        return found | {k: v for k, v in (("namespace", self.namespace), ("uid", self.uid)) if v}


class EventWriter:
    """`say` never waits; `run` it beside. `controller` and `instance` say who speaks."""

    def __init__(
        self,
        api: ApiClient,
        controller: str,
        instance: str,
        *,
        quiet_s: float = 600.0,
        pause_s: float = 0.5,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._api = api
        self._controller, self._instance = controller, instance
        self._quiet_s, self._pause_s = quiet_s, pause_s
        self._clock = clock
        self._said: OrderedDict[tuple[Regarding, str, str], float] = OrderedDict()
        self._waiting: asyncio.Queue[tuple[str, dict[str, Any]]] = asyncio.Queue(MOST_WAITING)
        self._number = 0
        self.left_out = 0

    def say(
        self, regarding: Regarding, reason: str, note: str, action: str, kind: Literal["Normal", "Warning"] = "Warning"
    ) -> None:
        """`reason` and `action` are single words in CamelCase, `note` is for people."""
        key, now = (regarding, reason, note), self._clock()
        if now - self._said.get(key, -self._quiet_s) < self._quiet_s:
            return
        if self._waiting.full():
            self.left_out += 1
            return
        self._said[key] = now
        self._said.move_to_end(key)
        while len(self._said) > MOST_REMEMBERED:
            self._said.popitem(last=False)
        # Events about what has no namespace are looked for in "default".
        namespace = regarding.namespace or "default"
        self._waiting.put_nowait((namespace, self._event(regarding, reason, note, action, kind, namespace)))

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            namespace, event = await self._waiting.get()
            try:
                await self._api.create(EVENTS, event, namespace)
            except MeshError as error:
                _log.info("event not written: %s", error)
            await asyncio.sleep(self._pause_s)

    def _event(
        self, regarding: Regarding, reason: str, note: str, action: str, kind: str, namespace: str
    ) -> dict[str, Any]:
        self._number += 1
        return {
            "apiVersion": EVENTS.group_version,
            "kind": "Event",
            "metadata": {"name": f"{regarding.name}.{time.time_ns():x}{self._number:x}", "namespace": namespace},
            "eventTime": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ"),
            "reportingController": self._controller,
            "reportingInstance": self._instance[:128],
            "action": action,
            "reason": reason,
            "regarding": regarding.reference(),
            "note": note[:LONGEST_NOTE],
            "type": kind,
        }
