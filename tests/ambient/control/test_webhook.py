"""The webhook over HTTPS: reviews answered, nonsense named, renewed certificates used, floods cut."""

from __future__ import annotations

import asyncio
import io
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Any

import aiohttp
import pytest

from ambient.ca.roots import load_authority, make_root
from ambient.control import webhook
from ambient.control.issuers import OwnIssuer
from ambient.control.metrics import ControlMetrics
from ambient.control.tls import ServerCertificate
from ambient.control.webhook import Webhook
from ambient.errors import Unavailable
from ambient.model.address import Endpoint
from tests.support.admission import BAD, VIEW, asked, policy
from tests.support.waiting import eventually

DAY = timedelta(days=1)
LOOPBACK = ip_address("127.0.0.1")


class Served:
    def __init__(
        self,
        server: Webhook,
        port: int,
        session: aiohttp.ClientSession,
        metrics: ControlMetrics,
        tls: ServerCertificate,
    ) -> None:
        self.server = server
        self.port, self.session, self.metrics, self.tls = port, session, metrics, tls

    async def post(self, body: bytes, path: str = "/validate") -> tuple[int, bytes]:
        async with self.session.post(f"https://localhost:{self.port}{path}", data=io.BytesIO(body)) as answer:
            return answer.status, await answer.read()

    async def review(self, content: dict[str, Any]) -> dict[str, Any]:
        status, body = await self.post(json.dumps(asked(content)).encode(), "/validate?timeout=10s")
        assert status == 200
        found: dict[str, Any] = json.loads(body)["response"]
        return found


@asynccontextmanager
async def served(**options: Any) -> AsyncIterator[Served]:
    now = datetime.now(UTC)
    certificate, key = make_root(now)
    root = load_authority({"root-cert.pem": certificate.encode(), "root-key.pem": key.encode()}, now)
    tls = ServerCertificate(OwnIssuer(lambda: root, default=DAY, longest=DAY), {"localhost"}, LOOPBACK)
    await tls.renew(now)
    metrics = ControlMetrics()
    server = Webhook(lambda: VIEW, metrics, **options)
    port = await server.start(Endpoint(LOOPBACK, 0), tls.context())
    connector = aiohttp.TCPConnector(ssl=ssl.create_default_context(cadata=certificate), force_close=True)
    async with aiohttp.ClientSession(connector=connector) as session:
        try:
            yield Served(server, port, session, metrics, tls)
        finally:
            await server.stop()


def test_a_review_is_answered_with_a_verdict_that_is_counted() -> None:
    async def scenario() -> None:
        async with served() as here:
            assert (await here.review(policy("{rules: [{}]}")))["allowed"]
            assert "warnings" in await here.review(policy("{action: DENY}"))
            assert not (await here.review(BAD))["allowed"]
            text = here.metrics.render().decode()
            for verdict in ("allowed", "warned", "refused"):
                series = (
                    f'ambient_control_admission_reviews_total{{kind="AuthorizationPolicy",verdict="{verdict}"}} 1.0'
                )
                assert series in text

    asyncio.run(scenario())


def test_a_kind_that_a_caller_invents_is_no_label() -> None:
    async def scenario() -> None:
        async with served() as here:
            await here.review({"kind": "Invented", "metadata": {}})
            assert "Invented" not in here.metrics.render().decode()

    asyncio.run(scenario())


@pytest.mark.parametrize("body", [b"", b"rubbish", b"[" * 100_000, b"{}", b'{"request": 7}', b"\xff\xfe"])
def test_nonsense_is_a_bad_request_and_the_next_one_is_answered(body: bytes) -> None:
    async def scenario() -> None:
        async with served() as here:
            assert (await here.post(body))[0] == 400
            assert (await here.review(policy("{rules: [{}]}")))["allowed"]

    asyncio.run(scenario())


def test_other_paths_methods_and_sizes_are_refused() -> None:
    async def scenario() -> None:
        async with served() as here:
            assert (await here.post(b"{}", "/other"))[0] == 404
            async with here.session.get(f"https://localhost:{here.port}/validate") as answer:
                assert answer.status == 405
            assert (await here.post(b" " * (webhook.MOST_BYTES + 1)))[0] == 413
            assert await here.post(b"[" + b"{}," * (webhook.MOST_PARTS // 2) + b"{}]") == (400, b"too many parts\n")

    asyncio.run(scenario())


def test_after_a_renewal_new_connections_get_the_new_certificate() -> None:
    async def scenario() -> None:
        async with served() as here:
            before = await _certificate(here)
            await here.tls.renew(datetime.now(UTC))
            assert await _certificate(here) != before
            assert (await here.review(policy("{rules: [{}]}")))["allowed"]

    asyncio.run(scenario())


async def _certificate(here: Served) -> bytes:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    _, writer = await asyncio.open_connection("127.0.0.1", here.port, ssl=context)
    der: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.close()
    return der


def test_an_address_that_is_taken_is_said() -> None:
    async def scenario() -> None:
        async with served() as here:
            with pytest.raises(Unavailable, match="cannot listen"):
                await Webhook(lambda: VIEW, here.metrics).start(Endpoint(LOOPBACK, here.port), here.tls.context())

    asyncio.run(scenario())


def unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


async def slow_posts(port: int, count: int, source: str, length: int = 1000) -> list[asyncio.StreamWriter]:
    """Connections from an address of this machine, each in the middle of a request."""
    writers = []
    for _ in range(count):
        _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=unverified(), local_addr=(source, 0))
        writer.write(f"POST /validate HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{{".encode())
        writers.append(writer)
    return writers


@pytest.mark.parametrize("length", [1000, webhook.LARGE_BYTES + 1])
def test_slow_posts_from_elsewhere_do_not_keep_the_api_server_waiting(length: int) -> None:
    async def scenario() -> None:
        async with served(patience_s=3600) as here:
            slow = await slow_posts(here.port, 2 * webhook.MOST_AT_ONCE, "127.0.0.2", length)
            for _ in range(3):
                assert (await here.review(policy("{rules: [{}]}")))["allowed"]
            large = json.dumps(asked(policy("{rules: [{}]}"))).encode() + b" " * webhook.LARGE_BYTES
            assert (await here.post(large))[0] == 200
            for writer in slow:
                writer.close()

    asyncio.run(scenario())


def test_one_address_holds_so_many_connections_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "MOST_CONNECTIONS_EACH", 4)

    async def scenario() -> None:
        async with served(patience_s=3600) as here:
            slow = await slow_posts(here.port, 4, "127.0.0.2")
            await eventually(lambda: here.server._guests._count == 4)
            reader, writer = await asyncio.open_connection(
                "127.0.0.1", here.port, ssl=unverified(), local_addr=("127.0.0.2", 0)
            )
            with suppress(ConnectionError):
                assert await reader.read() == b""
            assert (await here.review(policy("{rules: [{}]}")))["allowed"]
            for one in (*slow, writer):
                one.close()
            await eventually(lambda: here.server._guests._count == 0)

    asyncio.run(scenario())


@pytest.mark.parametrize("begun", [b"", b"POST /validate HTTP/1.1\r\nHost: x\r\n"])
def test_who_asks_nothing_is_closed(begun: bytes) -> None:
    async def scenario() -> None:
        async with served(patience_s=0.5) as here:
            reader, writer = await asyncio.open_connection("127.0.0.1", here.port, ssl=unverified())
            writer.write(begun)
            with suppress(ConnectionError):
                assert await reader.read() == b""
            writer.close()

    asyncio.run(scenario())


def test_who_does_not_send_what_he_announced_is_told_so() -> None:
    async def scenario() -> None:
        async with served(patience_s=0.5) as here:
            reader, writer = await asyncio.open_connection("127.0.0.1", here.port, ssl=unverified())
            writer.write(b"POST /validate HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{")
            assert (await reader.readline()).split()[1] == b"408"
            writer.close()

    asyncio.run(scenario())
