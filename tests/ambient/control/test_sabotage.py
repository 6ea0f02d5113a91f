"""Each promise of the control plane, with the part that keeps it broken on purpose: the check must notice."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from ambient.ca.entitle import Tenancy
from ambient.ca.token import Caller
from ambient.xds.client import DeltaClient
from ambient.xds.codec import ADDRESS_TYPE, AUTHORIZATION_TYPE, Resource, encode
from ambient.xds.messages import DeltaResponse, ztunnel_node
from tests.support.control import ControlBench, Subscriber, create_certificate, make_csr, until
from tests.support.discovery import simple_workload

FOREIGN = "spiffe://cluster.local/ns/shop/sa/db"


class OpenGate:
    """Believes whatever it is told."""

    async def client(self, metadata: Any) -> Caller:
        return Caller("n1", "ambient-system", "ztunnel", "")


async def is_served_without_a_token(bench: ControlBench) -> bool:
    async with Subscriber(bench.client(token="rubbish")) as stranger:
        await until(lambda: any(state.why or state.state == "synced" for state in stranger.states))
        return any(state.state == "synced" for state in stranger.states)


@pytest.mark.parametrize("broken", [False, True])
def test_nobody_is_served_without_a_token_unless_the_gate_is_open(tmp_path: Path, broken: bool) -> None:
    async def scenario() -> None:
        async with ControlBench(tmp_path) as bench:
            if broken:
                bench.plane.discovery._gate = OpenGate()  # type: ignore[assignment]
            assert await is_served_without_a_token(bench) is broken

    asyncio.run(scenario())


async def gets_a_foreign_identity(bench: ControlBench) -> bool:
    try:
        await create_certificate(bench.client("n1"), make_csr(FOREIGN), FOREIGN)
    except grpc.aio.AioRpcError as error:
        return error.code() is not grpc.StatusCode.PERMISSION_DENIED
    return True


@pytest.mark.parametrize("broken", [False, True])
def test_a_node_gets_no_foreign_identity_unless_tenancies_lie(tmp_path: Path, broken: bool) -> None:
    async def scenario() -> None:
        async with ControlBench(tmp_path, AMBIENT_NEWS_PATIENCE="20ms") as bench:
            if broken:
                await bench.plane.certificates.tenancies_changed({Tenancy("n1", "shop", "db")})
            assert await gets_a_foreign_identity(bench) is broken

    asyncio.run(scenario())


@pytest.mark.parametrize("broken", [False, True])
def test_a_refused_response_changes_nothing_unless_the_client_is_lax(broken: bool) -> None:
    client = DeltaClient(ztunnel_node("n1"), lax=broken)
    bad = Resource(ADDRESS_TYPE, "x", "1", b"\xff")
    response = DeltaResponse(type_url=ADDRESS_TYPE, nonce="1", resources=(encode(simple_workload("a")), bad))
    batch, _ = client.receive(response)
    assert (simple_workload("a") in batch.put) is broken


@pytest.mark.parametrize("broken", [False, True])
def test_a_refused_new_policy_closes_unless_the_client_is_lax(broken: bool) -> None:
    client = DeltaClient(ztunnel_node("n1"), lax=broken)
    bad = Resource(AUTHORIZATION_TYPE, "ns/p", "1", b"\xff")
    batch, _ = client.receive(DeltaResponse(type_url=AUTHORIZATION_TYPE, nonce="1", resources=(bad,)))
    assert bool(batch.put) is not broken
