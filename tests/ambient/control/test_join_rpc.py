"""The join service over real gRPC on loopback, with discovery and CA beside it: from a ticket to a certificate."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from ambient.ca.ticket import NOTE, Ticket, new_ticket
from ambient.errors import InvalidInput, Refused, Unavailable
from ambient.join.client import JoinClient
from ambient.kube.networking import WorkloadEntry
from ambient.kube.objects import parse_object
from tests.support.control import ControlBench, create_certificate, make_csr, until
from tests.support.joining import ADDRESS, token_of

SA = "spiffe://cluster.local/ns/shop/sa/"


def _ticket(bench: ControlBench) -> Ticket:
    """A ticket for a new group `ledger`."""
    control, root = f"127.0.0.1:{bench.port}", (bench.ca / "root-cert.pem").read_text()
    ticket, note = new_ticket("shop", "ledger", control=control, root=root, expires_unix=4e9)
    metadata = {"name": "ledger", "namespace": "shop", "annotations": {NOTE + ticket.number: note}}
    raw = {"apiVersion": "networking.istio.io/v1", "kind": "WorkloadGroup", "metadata": metadata}
    bench.folder.put([parse_object({**raw, "spec": {"template": {"serviceAccount": "ledger"}}}, "test")])
    return ticket


def _client(ticket: Ticket, token: str = "") -> JoinClient:
    return JoinClient(ticket.control, ticket.root, token=token)


async def _join(ticket: Ticket) -> dict[str, Any]:
    parts = {"namespace": ticket.namespace, "group": ticket.group, "number": ticket.number, "secret": ticket.secret}
    async with _client(ticket) as client:
        return await client.call("Join", {**parts, "address": ADDRESS})


def _against(folder: Path, scenario: Callable[[ControlBench], Awaitable[None]]) -> None:
    async def run() -> None:
        async with ControlBench(folder) as bench:
            await scenario(bench)

    asyncio.run(run())


def _entries(bench: ControlBench) -> list[WorkloadEntry]:
    return bench.folder.records().of(WorkloadEntry)


def test_a_machine_joins_gets_its_own_certificate_no_other_and_leaves(tmp_path: Path) -> None:
    async def scenario(bench: ControlBench) -> None:
        ticket = _ticket(bench)
        answer = await _join(ticket)
        settings = bench.client("machine", token=token_of(answer, "ztunnel"))
        await until(lambda: bench.plane.trust.members.records.of(WorkloadEntry))
        assert await create_certificate(settings, make_csr(SA + "ledger"), SA + "ledger")
        with pytest.raises(grpc.aio.AioRpcError, match="no pod of this account"):
            await create_certificate(settings, make_csr(SA + "web"), SA + "web")
        async with _client(ticket, token_of(answer)) as client:
            assert await client.call("Beat", {"why": "", "captured": True}) == {}
            assert _entries(bench)[0].annotations["ambient.istio.io/redirection"] == "enabled"
            assert await client.call("Leave", {}) == {}
        assert not _entries(bench)
        await until(lambda: not bench.plane.trust.members.records.of(WorkloadEntry))
        with pytest.raises(grpc.aio.AioRpcError, match="no member"):
            await create_certificate(settings, make_csr(SA + "ledger"), SA + "ledger")

    _against(tmp_path, scenario)


def test_an_agents_session_gets_no_certificate(tmp_path: Path) -> None:
    async def scenario(bench: ControlBench) -> None:
        answer = await _join(_ticket(bench))
        settings = bench.client("machine", token=token_of(answer, "agent"))
        await until(lambda: bench.plane.trust.members.records.of(WorkloadEntry))
        with pytest.raises(grpc.aio.AioRpcError, match="may not ask for certificates"):
            await create_certificate(settings, make_csr(SA + "ledger"), SA + "ledger")

    _against(tmp_path, scenario)


def test_refusals_come_out_as_what_they_are(tmp_path: Path) -> None:
    async def scenario(bench: ControlBench) -> None:
        ticket = _ticket(bench)
        await _join(ticket)
        with pytest.raises(Refused, match="no such ticket"):
            await _join(ticket)
        async with _client(ticket, "somebody's token") as client:
            with pytest.raises(Refused, match="not a session"):
                await client.call("Beat", {"why": "", "captured": True})
            with pytest.raises(InvalidInput, match="`why` is a text"):
                await client.call("Beat", {"why": 1})
            with pytest.raises(InvalidInput, match="expected form"):
                await client.call("Join", {"namespace": 1})
            with pytest.raises(InvalidInput, match="at most"):
                await client.call("Join", {"namespace": "x" * 20_000})

    _against(tmp_path, scenario)


def test_a_control_plane_that_the_tickets_root_does_not_know_is_not_talked_to(tmp_path: Path) -> None:
    async def scenario(bench: ControlBench) -> None:
        ticket = _ticket(bench)
        bench.new_root()
        stranger = (bench.ca / "root-cert.pem").read_text().split("-----END CERTIFICATE-----")[0]
        forged = Ticket(
            **{name: getattr(ticket, name) for name in ("namespace", "group", "number", "secret", "control")},
            root=stranger + "-----END CERTIFICATE-----\n",
        )
        with pytest.raises(Unavailable):
            await _join(forged)
        assert not _entries(bench)

    _against(tmp_path, scenario)


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff", b'{"a":' * 2000])
def test_a_body_that_is_no_object_is_refused(tmp_path: Path, body: bytes) -> None:
    async def scenario(bench: ControlBench) -> None:
        ticket = _ticket(bench)
        credentials = grpc.ssl_channel_credentials(ticket.root.encode())
        options = (("grpc.ssl_target_name_override", "istiod.istio-system.svc"),)
        async with grpc.aio.secure_channel(ticket.control, credentials, options=options) as channel:
            method = channel.unary_unary(
                "/ambient.join.v1.Join/Join", request_serializer=None, response_deserializer=None
            )
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await method(body, timeout=5)
            assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT

    _against(tmp_path, scenario)
