"""Keeps the authority in the ValidatingWebhookConfiguration right, so that the API server believes our webhook."""

from __future__ import annotations

import asyncio
import base64
import logging
import random
from collections.abc import Callable, Mapping
from typing import Any, Final

from ambient.control.metrics import ControlMetrics
from ambient.errors import MeshError
from ambient.kube.api.client import ApiClient
from ambient.kube.api.failure import ApiInvalid, ApiRefused, ApiUnavailable
from ambient.kube.api.follow import Follower
from ambient.kube.api.listwatch import Change, ListWatch, Pace
from ambient.kube.resource import Resource
from ambient.waking import woken

CONFIGURATIONS: Final = Resource("admissionregistration.k8s.io/v1", "validatingwebhookconfigurations", namespaced=False)
_LOOK_S: Final = 2.0
_AGAIN_S: Final = 5.0

_log = logging.getLogger("ambient.control.webhook")


def patch_for(configuration: Mapping[str, Any], roots: str) -> list[dict[str, str]]:
    """A JSON patch (RFC 6902) that puts `roots` (PEM) where they are not; it changes nothing else of anybody's. Pure.

    It holds only for the version that was looked at.
    """
    bundle = base64.b64encode(roots.encode()).decode()
    changes = []
    for number, webhook in enumerate(configuration.get("webhooks") or ()):
        client = webhook.get("clientConfig") or {}
        if client.get("service") and client.get("caBundle") != bundle:
            changes.append({"op": "add", "path": f"/webhooks/{number}/clientConfig/caBundle", "value": bundle})
    if not changes:
        return []
    version = str((configuration.get("metadata") or {}).get("resourceVersion", ""))
    return [{"op": "test", "path": "/metadata/resourceVersion", "value": version}, *changes]


class WebhookConfiguration:
    """`run` it beside the webhook; `look` when other roots are trusted or somebody else writes."""

    def __init__(
        self,
        api: ApiClient,
        name: str,
        roots: Callable[[], str],
        leading: Callable[[], bool],
        metrics: ControlMetrics,
        *,
        again_s: float = _AGAIN_S,
    ) -> None:
        self._api = api
        self._name = name
        self._roots = roots
        self._leading = leading
        self._metrics = metrics
        self._again_s = again_s
        self._there: Mapping[str, Any] | None = None
        self._wake = asyncio.Event()
        core = ListWatch(
            "ValidatingWebhookConfiguration",
            (CONFIGURATIONS,),
            fields=f"metadata.name={name}",
            pace=Pace(),
            random=random.random,
        )
        self._follower = Follower(api, core, self._take, self._wake.set)

    def look(self) -> None:
        self._wake.set()

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follower.run())
            group.create_task(self._write())

    def _take(self, change: Change) -> None:
        self._there = change.content

    async def _write(self) -> None:
        while True:
            # The lease may become ours without anybody saying so.
            await woken(self._wake, _LOOK_S)
            self._wake.clear()
            there = self._there
            patch = patch_for(there, self._roots()) if there is not None and self._leading() else []
            if not patch:
                continue
            try:
                written = await self._api.patch(CONFIGURATIONS, self._name, patch, form="json")
                if self._there is there:  # otherwise the watch has shown this or a later version meanwhile
                    self._there = written
                self._metrics.webhook_updates.inc()
                _log.info("the API server knows our authority (ValidatingWebhookConfiguration %s)", self._name)
            except MeshError as error:
                reason = error.reason if isinstance(error, ApiRefused | ApiInvalid | ApiUnavailable) else ""
                self._metrics.webhook_update_errors.labels(reason or type(error).__name__).inc()
                _log.warning("the API server may not believe our webhook: %s", error)
                await asyncio.sleep(self._again_s)
                self._wake.set()
