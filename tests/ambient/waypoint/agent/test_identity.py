"""A waypoint's certificate: nothing is told before there is one, a failure takes none away, new roots renew it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from ambient.errors import Unavailable
from ambient.waypoint.agent.identity import OwnIdentity
from ambient.waypoint.typed import SECRET_TYPE
from ambient.xds.messages import DeltaRequest
from ambient.xds.server import DeltaStream, Order
from tests.support.authority import Authority
from tests.support.waiting import eventually

NAME = "spiffe://cluster.local/ns/shop/sa/waypoint"


@asynccontextmanager
async def running(ca: Authority) -> AsyncIterator[OwnIdentity]:
    identity = OwnIdentity(NAME, ca.sign, clock=time.time, draw=lambda: 0.0)
    task = asyncio.create_task(identity.run())
    try:
        yield identity
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def asks(identity: OwnIdentity) -> DeltaStream:
    stream = DeltaStream(identity.secrets, order=Order((SECRET_TYPE,)))
    stream.receive(DeltaRequest(type_url=SECRET_TYPE, subscribe=("default",)))
    return stream


def test_envoy_hears_nothing_before_there_is_a_certificate_and_then_has_it() -> None:
    async def scenario() -> None:
        ca = Authority()
        ca.failure = Unavailable("no CA")
        async with running(ca) as identity:
            stream = asks(identity)
            await eventually(lambda: ca.asked)
            assert stream.pull() is None
            ca.failure = None
            identity.renew()
            await eventually(lambda: identity.secrets.filled)
            response = stream.pull()
            assert response is not None
            assert [one.name for one in response.resources] == ["default"]
            assert b"PRIVATE KEY" in response.resources[0].body

    asyncio.run(scenario())


def test_a_certificate_is_kept_while_another_cannot_be_had_and_replaced_when_it_can() -> None:
    async def scenario() -> None:
        ca = Authority()
        async with running(ca) as identity:
            told: list[int] = []
            identity.listeners.append(lambda: told.append(1))
            await eventually(lambda: identity.secrets.filled)
            before = dict(identity.secrets.resources(SECRET_TYPE))
            asked = len(ca.asked)
            ca.failure = Unavailable("no CA")
            identity.renew()
            await eventually(lambda: len(ca.asked) > asked)
            assert dict(identity.secrets.resources(SECRET_TYPE)) == before
            ca.failure = None
            identity.renew()
            await eventually(lambda: dict(identity.secrets.resources(SECRET_TYPE)) != before)
            assert len(told) >= 2

    asyncio.run(scenario())
