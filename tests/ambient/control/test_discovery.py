"""Discovery over gRPC against callers that are nobody, somebody else, broken, too many or too slow."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path

import grpc
import grpc.aio
import pytest

from ambient.ca.token import Caller, issue_token
from ambient.control.discovery import MOST_STREAMS_PER_CLIENT
from ambient.waypoint.bootstrap import GATEWAY_HEADER
from ambient.waypoint.typed import CLUSTER_TYPE
from ambient.xds.channel import ServerSettings, call_metadata, open_channel
from ambient.xds.codec import ADDRESS_TYPE
from ambient.xds.messages import METHOD, DeltaRequest, encode_request, ztunnel_node
from tests.support.control import ISSUER, ControlBench, Subscriber, pem_of, until
from tests.support.discovery import simple_workload

HELLO = encode_request(DeltaRequest(type_url=ADDRESS_TYPE, node=ztunnel_node("n1")))


class RawStream:
    """A discovery stream of bytes: `async with RawStream(settings, [first, ...])`."""

    def __init__(
        self, settings: ServerSettings, requests: Sequence[bytes], metadata: Sequence[tuple[str, str]] | None = None
    ) -> None:
        self._settings = settings
        self._requests = requests
        self._metadata = metadata
        self._end = asyncio.Event()

    async def __aenter__(self) -> RawStream:
        self._channel = open_channel(self._settings)
        given = call_metadata(self._settings) if self._metadata is None else self._metadata
        make = self._channel.stream_stream(METHOD, request_serializer=None, response_deserializer=None)
        self.call = make(self._send(), metadata=tuple(given))
        return self

    async def __aexit__(self, *_: object) -> None:
        self._end.set()
        self.call.cancel()
        await self._channel.close(None)

    async def _send(self) -> AsyncIterator[bytes]:
        for request in self._requests:
            yield request
        await self._end.wait()

    async def failure(self) -> tuple[grpc.StatusCode, str]:
        """Read until the server ends the stream; gives status and reason."""
        async with asyncio.timeout(10):
            with contextlib.suppress(grpc.aio.AioRpcError):
                while await self.call.read() is not grpc.aio.EOF:
                    pass
            return await self.call.code(), await self.call.details() or ""


async def refusal(
    settings: ServerSettings,
    requests: Sequence[bytes] = (HELLO,),
    metadata: Sequence[tuple[str, str]] | None = None,
) -> tuple[grpc.StatusCode, str]:
    """Status and reason with which the server ends such a stream.

    When the refusal overtakes what the client still writes, grpc.aio hides the server's status: then ask again.
    """
    status, details = grpc.StatusCode.INTERNAL, ""
    while status is grpc.StatusCode.INTERNAL:
        async with RawStream(settings, requests, metadata) as stream:
            status, details = await stream.failure()
    return status, details


def refused(
    tmp_path: Path,
    code: grpc.StatusCode,
    reason: str,
    requests: Sequence[bytes] = (HELLO,),
    *,
    token: str | None = None,
    metadata: Sequence[tuple[str, str]] | None = None,
    account: str = "ztunnel",
    **environment: str,
) -> None:
    async def scenario() -> None:
        async with ControlBench(tmp_path, **environment) as bench:
            settings = bench.client(account=account, token=token)
            status, details = await refusal(settings, requests, metadata)
            assert (status, details) == (code, details)
            assert reason in details
            await until(lambda: bench.plane.discovery.clients == {})
            # Whoever behaves is served as if nothing had happened.
            async with Subscriber(bench.client("n2")) as other:
                await other.synced()

    asyncio.run(scenario())


UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ([], "no bearer token"),
        ([("authorization", "Basic abc")], "not a bearer token"),
        ([("authorization", "Bearer ")], "not a bearer token"),
        ([("authorization", "Bearer x"), ("authorization", "Bearer y")], "more than one"),
        ([("authorization", "Bearer x")], "not a token of the expected form"),
    ],
)
def test_a_stream_without_a_usable_token_is_refused(
    tmp_path: Path, metadata: list[tuple[str, str]], reason: str
) -> None:
    refused(tmp_path, UNAUTHENTICATED, reason, metadata=metadata)


def test_an_account_that_is_no_client_is_refused(tmp_path: Path) -> None:
    refused(tmp_path, UNAUTHENTICATED, "is no client", account="web")


def test_a_token_signed_by_somebody_else_is_refused(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    token = ControlBench(tmp_path / "other").token()
    refused(tmp_path, UNAUTHENTICATED, "not signed by a key we trust", token=token)


def test_a_node_cannot_speak_for_another(tmp_path: Path) -> None:
    hello = encode_request(DeltaRequest(type_url=ADDRESS_TYPE, node=ztunnel_node("n2")))
    refused(tmp_path, grpc.StatusCode.PERMISSION_DENIED, "the token is for node n1", [hello])


def test_bytes_that_are_no_request_end_the_stream(tmp_path: Path) -> None:
    refused(tmp_path, grpc.StatusCode.INVALID_ARGUMENT, "bytes are not that message", [b"\xff\xff"])
    (tmp_path / "later").mkdir()
    refused(tmp_path / "later", grpc.StatusCode.INVALID_ARGUMENT, "bytes are not that message", [HELLO, b"\xff\xff"])


def test_a_type_that_we_do_not_have_ends_the_stream_with_its_name(tmp_path: Path) -> None:
    strange = encode_request(DeltaRequest(type_url="type.googleapis.com/envoy.config.cluster.v3.Cluster"))
    refused(tmp_path, grpc.StatusCode.PERMISSION_DENIED, "cluster.v3.Cluster: this server has no such type", [strange])


def test_a_client_that_asks_for_nothing_is_cut_off(tmp_path: Path) -> None:
    refused(tmp_path, grpc.StatusCode.INVALID_ARGUMENT, "no request within 0.1 s", [], AMBIENT_CLIENT_PATIENCE="100ms")


def test_a_client_that_does_not_read_is_cut_off(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlBench(tmp_path, AMBIENT_CLIENT_PATIENCE="300ms") as bench:
            big = [simple_workload(f"w{i}", canonical_name="x" * 10_000) for i in range(3000)]
            bench.plane.catalogue.update(big, 1)
            async with RawStream(bench.client(), [HELLO]):
                await until(lambda: bench.plane.discovery.clients)
                await until(lambda: not bench.plane.discovery.clients)
            assert b'code="INVALID_ARGUMENT",service="discovery"} 1.0' in bench.plane.metrics.render()

    asyncio.run(scenario())


def test_streams_without_end_are_refused_but_only_of_the_client_that_opens_them(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlBench(tmp_path) as bench:
            settings = bench.client()
            streams = [RawStream(settings, [HELLO]) for _ in range(8)]
            for stream in streams:
                await stream.__aenter__()
                await stream.call.read()
            code, details = await refusal(settings)
            assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert "n1/ztunnel: has 8 open" in details
            async with Subscriber(bench.client("n2")) as other:
                await other.synced()
            for stream in streams:
                await stream.__aexit__()
            await until(lambda: "n1/ztunnel" not in bench.plane.discovery.clients)
            async with Subscriber(settings) as again:
                await again.synced()

    asyncio.run(scenario())


def test_all_streams_together_have_a_limit(tmp_path: Path) -> None:
    async def scenario() -> None:
        bench = ControlBench(tmp_path, AMBIENT_MOST_STREAMS="1")
        async with bench, Subscriber(bench.client()) as first:
            await first.synced()
            assert (await refusal(bench.client("n2")))[0] is grpc.StatusCode.RESOURCE_EXHAUSTED

    asyncio.run(scenario())


def test_an_old_stream_ends_cleanly_and_the_client_goes_on_at_once_with_a_fresh_token(tmp_path: Path) -> None:
    async def scenario() -> None:
        bench = ControlBench(tmp_path, AMBIENT_STREAM_AGE="150ms")
        async with bench:
            async with Subscriber(bench.client()) as ztunnel:
                await until(lambda: sum(state.state == "synced" for state in ztunnel.states) >= 3)
            ends = [state for state in ztunnel.states if state.state == "disconnected"]
            assert {state.why for state in ends} == {"the server ended the stream"}
            assert all(state.retry_in_s < 0.02 for state in ends)

    asyncio.run(scenario())


def test_a_flood_of_bad_streams_leaves_a_good_client_served_and_the_log_short(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        async with ControlBench(tmp_path) as bench:
            settings = bench.client()
            channel = open_channel(settings)
            make = channel.stream_stream(METHOD, request_serializer=None, response_deserializer=None)

            async def bad() -> grpc.StatusCode:
                call = make(metadata=(("authorization", "Bearer x"),))
                with contextlib.suppress(grpc.aio.AioRpcError):
                    await call.read()
                return await call.code()

            async with Subscriber(bench.client("n2")) as good:
                started = time.monotonic()
                codes = await asyncio.gather(*(bad() for _ in range(300)))
                # A connection carries 100 streams at a time; gRPC turns away what is over that.
                assert set(codes) <= {UNAUTHENTICATED, grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.INTERNAL}
                assert codes.count(UNAUTHENTICATED) >= 100
                await good.synced()
                seconds = time.monotonic() - started
            await channel.close(None)
            lines = [r for r in caplog.records if "refused a stream" in r.getMessage()]
            assert len(lines) <= 10 * (int(seconds) + 2)

    caplog.set_level("WARNING", "ambient.control")
    asyncio.run(scenario())


def test_tokens_and_keys_never_reach_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with ControlBench(tmp_path) as bench:
            good, expired = bench.token(), bench.token(lifetime_s=-10)
            for token in (good, expired, "rubbish-token"):
                settings = bench.client(token=token)
                async with RawStream(settings, [HELLO]) as stream:
                    await asyncio.wait({asyncio.ensure_future(stream.call.read())}, timeout=5)
            text = caplog.text
            assert "n1/ztunnel" in text
            for secret in (good, expired, "rubbish-token", "PRIVATE KEY"):
                assert secret not in text
                assert secret.encode() not in bench.plane.metrics.render()

    caplog.set_level("DEBUG")
    asyncio.run(scenario())


def test_a_client_is_only_believed_about_what_it_was_sent(tmp_path: Path) -> None:
    """An answer to a response that was never sent acknowledges nothing."""

    async def scenario() -> None:
        async with ControlBench(tmp_path) as bench:
            bench.plane.catalogue.update([simple_workload("a")], 5)
            lie = encode_request(DeltaRequest(type_url=ADDRESS_TYPE, nonce="1.999"))
            async with RawStream(bench.client(), [HELLO, lie]) as stream:
                await stream.call.read()
                await until(lambda: bench.plane.discovery.clients)
                (client,) = bench.plane.discovery.clients.values()
                assert client.stream.acked < 5

    asyncio.run(scenario())


def test_the_newest_of_several_streams_speaks_for_a_client(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlBench(tmp_path) as bench, Subscriber(bench.client()) as old:
            await old.synced()
            first = bench.plane.discovery.clients["n1/ztunnel"]
            async with Subscriber(replace(bench.client())) as new:
                await new.synced()
                assert bench.plane.discovery.clients["n1/ztunnel"] is not first
            await until(lambda: bench.plane.discovery.clients["n1/ztunnel"] is first)

    asyncio.run(scenario())


def test_what_changes_all_the_time_is_told_in_fewer_pushes_and_completely(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlBench(tmp_path) as bench, Subscriber(bench.client()) as client:
            await until(lambda: any(state.state == "synced" for state in client.states))
            for number in range(100):
                bench.plane.catalogue.change([simple_workload(f"w{number}")], {}, number + 1)
                bench.plane.discovery.changed()
                # Each time the loop has turned often enough for a push to go out at once.
                for _ in range(20):
                    await asyncio.sleep(0)
            await until(lambda: len(client.view) == 100)
            assert len(client.batches) < 100

    asyncio.run(scenario())


def test_whoever_asks_does_not_wait_for_its_turn(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlBench(tmp_path) as bench, Subscriber(bench.client()) as client:
            await until(lambda: any(state.state == "synced" for state in client.states))
            (stream,) = bench.plane.discovery._clients
            await until(lambda: stream.stream.settled)
            stream.pushed = time.monotonic() + 3600
            stream.wake.set()
            bench.plane.catalogue.change([simple_workload("a")], {}, 1)
            bench.plane.discovery.changed()
            bench.plane.discovery._take(stream, encode_request(DeltaRequest(type_url=ADDRESS_TYPE, subscribe=("x",))))
            stream.wake.set()
            await until(lambda: bool(client.view))

    asyncio.run(scenario())


GATEWAY = """
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: ztunnel, namespace: shop}
spec: {gatewayClassName: istio-waypoint, listeners: [{name: mesh, port: 15008, protocol: HBONE}]}
"""


def test_a_waypoint_speaks_for_no_node_and_takes_no_nodes_streams_whatever_its_account_is_called(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        async with ControlBench(tmp_path) as bench, contextlib.AsyncExitStack() as nodes:
            revision = bench.apply(GATEWAY)
            await until(lambda: bench.plane.reconciler.observed >= revision)
            for _ in range(MOST_STREAMS_PER_CLIENT):
                stream = await nodes.enter_async_context(RawStream(bench.client(), [HELLO]))
                await stream.call.read()
            newest = bench.plane.discovery.clients["n1/ztunnel"]
            caller = Caller("n1", "shop", "ztunnel", "other")
            token = issue_token(pem_of(bench.token_key), caller, time.time(), 600.0, issuer=ISSUER)
            settings = replace(bench.client("x", token=token), headers=((GATEWAY_HEADER, "ztunnel"),))
            async with RawStream(settings, [encode_request(DeltaRequest(type_url=CLUSTER_TYPE))]):
                await until(lambda: bench.plane.waypoints.summary["shop/ztunnel"]["proxies"] == 1)
                assert bench.plane.discovery.clients["n1/ztunnel"] is newest
                assert len(bench.plane.discovery.streams) == MOST_STREAMS_PER_CLIENT

    asyncio.run(scenario())
