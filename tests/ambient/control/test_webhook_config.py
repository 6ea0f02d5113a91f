"""The authority in the webhook configuration: put there, followed, repaired, and nothing else touched."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from ambient.control.metrics import ControlMetrics
from ambient.control.webhook_config import CONFIGURATIONS, WebhookConfiguration, patch_for
from ambient.kube.api.client import ApiClient
from tests.support.kube_api import Answer, FakeApi, status_body
from tests.support.waiting import eventually

NAME = "ambient-control"
SERVICE = {"service": {"name": "ambient-control", "namespace": "ambient-system", "path": "/validate"}}


def configuration(**client: Any) -> dict[str, Any]:
    return {
        "apiVersion": CONFIGURATIONS.group_version,
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": NAME, "resourceVersion": "7"},
        "webhooks": [{"name": "a", "failurePolicy": "Ignore", "clientConfig": {**SERVICE, **client}}],
    }


def bundle(roots: str) -> str:
    return base64.b64encode(roots.encode()).decode()


def test_only_the_bundle_of_webhooks_behind_a_service_is_put_right_in_the_version_that_was_seen() -> None:
    there = configuration()
    there["webhooks"].append({"name": "b", "clientConfig": {"url": "https://elsewhere.example"}})
    assert patch_for(there, "ROOTS") == [
        {"op": "test", "path": "/metadata/resourceVersion", "value": "7"},
        {"op": "add", "path": "/webhooks/0/clientConfig/caBundle", "value": bundle("ROOTS")},
    ]
    assert patch_for(configuration(caBundle=bundle("ROOTS")), "ROOTS") == []
    assert patch_for({}, "ROOTS") == []


def bundle_in(found: Mapping[str, Any] | None) -> object:
    return found["webhooks"][0]["clientConfig"].get("caBundle") if found is not None else None


class World:
    def __init__(self, server: FakeApi, api: ApiClient) -> None:
        self.server, self.api = server, api
        self.roots, self.leading = "ROOTS", True
        self.metrics = ControlMetrics()
        self.kept = WebhookConfiguration(
            api, NAME, lambda: self.roots, lambda: self.leading, self.metrics, again_s=0.01
        )

    @property
    def bundle(self) -> object:
        return bundle_in(self.server.stored("ValidatingWebhookConfiguration", NAME))


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    async with FakeApi() as server, ApiClient(server.access()) as api:
        here = World(server, api)
        running = asyncio.create_task(here.kept.run())
        yield here
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def test_it_is_put_there_whenever_the_configuration_comes_followed_and_repaired() -> None:
    async def scenario() -> None:
        async with world() as here:
            here.server.put(configuration())
            await eventually(lambda: here.bundle == bundle("ROOTS"))
            here.roots = "BOTH"
            here.kept.look()
            await eventually(lambda: here.bundle == bundle("BOTH"))
            here.server.put(configuration(caBundle="x"))
            await eventually(lambda: here.bundle == bundle("BOTH"))
            await eventually(lambda: b"galley_validation_config_updates 3.0" in here.metrics.render())

    asyncio.run(scenario())


def test_only_the_leader_writes() -> None:
    async def scenario() -> None:
        async with world() as here:
            here.leading = False
            here.server.put(configuration())
            await eventually(lambda: here.kept._there is not None)
            here.kept.look()
            await asyncio.sleep(0)
            assert here.bundle is None
            here.leading = True
            here.kept.look()
            await eventually(lambda: here.bundle == bundle("ROOTS"))

    asyncio.run(scenario())


def test_what_somebody_writes_while_our_write_is_being_answered_is_repaired() -> None:
    """The watch may show the later version before the answer to our patch has come."""

    async def scenario() -> None:
        async with world() as here:
            patch = here.api.patch

            async def slowly(*words: Any, **more: Any) -> Any:
                written = await patch(*words, **more)
                if here.metrics.webhook_updates._value.get() == 0:
                    here.server.put(configuration(caBundle="x"))
                    await eventually(lambda: bundle_in(here.kept._there) == "x")
                return written

            here.api.patch = slowly  # type: ignore[method-assign]
            here.server.put(configuration())
            await eventually(lambda: here.metrics.webhook_updates._value.get() == 2)
            assert here.bundle == bundle("ROOTS")

    asyncio.run(scenario())


def test_a_refusal_is_counted_by_reason_and_tried_again() -> None:
    async def scenario() -> None:
        async with world() as here:
            refused = Answer(409, status_body(409, "Conflict", "changed"))
            here.server.say(CONFIGURATIONS.path(name=NAME), refused)
            here.server.put(configuration())
            await eventually(lambda: here.bundle == bundle("ROOTS"))
            assert b'galley_validation_config_update_error{reason="Conflict"} 1.0' in here.metrics.render()

    asyncio.run(scenario())
