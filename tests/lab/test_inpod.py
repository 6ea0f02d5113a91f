"""A real ztunnel with real pods: binding, serving, and what survives what. Needs root."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

from tests.support.waiting import PATIENCE_S, eventually
from tests.support.ztunnel_bench import ZtunnelBench, ztunnel_bench


def bench(
    number: int, **environment: str
) -> Callable[[Callable[[ZtunnelBench], Awaitable[None]]], Callable[..., None]]:
    def decorate(test: Callable[[ZtunnelBench], Awaitable[None]]) -> Callable[..., None]:
        def run(tmp_path: Path) -> None:
            async def body() -> None:
                prefix = f"amb-inpod-{os.getpid() % 100000}-{number}"
                async with ztunnel_bench(tmp_path, prefix, number, **environment) as made:
                    try:
                        await made.served()
                        await test(made)
                    except BaseException:
                        print(made.ztunnel.log.read_text()[-8000:])
                        raise

            asyncio.run(body())

        run.__name__, run.__doc__ = test.__name__, test.__doc__
        return run

    return decorate


@bench(1)
async def test_a_connection_goes_through_the_tunnel_and_is_counted_dumped_and_shown(one: ZtunnelBench) -> None:
    assert await one.a.ask(one.b.ip, 8080) == f"{one.a.ip} hello".encode()
    assert await one.a.ask("10.96.0.9", 80) == f"{one.a.ip} hello".encode()

    async def counted() -> str:
        return (await one.ztunnel.get("/metrics", 20))[1]

    text = ""
    async with asyncio.timeout(PATIENCE_S):
        while text.count("istio_tcp_connections_closed_total{") < 2:
            text = await counted()
    line = next(row for row in text.splitlines() if row.startswith("istio_tcp_connections_opened_total{"))
    assert 'source_principal="spiffe://cluster.local/ns/shop/sa/a"' in line
    assert 'destination_principal="spiffe://cluster.local/ns/shop/sa/b"' in line
    status, dump = await one.ztunnel.get("/config_dump")
    assert status == 200
    for part in ("spiffe://cluster.local/ns/shop/sa/a", '"Available"', "Kubernetes//Pod/shop/b", '"state": "Up"'):
        assert part in dump
    assert "PRIVATE KEY" not in dump
    async with asyncio.timeout(PATIENCE_S):
        while '"event":"closed"' not in text:
            text = (await one.ztunnel.get("/flows?last=10"))[1]
    for pid in one.ztunnel.pids("director"):
        assert one.ztunnel.pss_kb(pid) <= 60_000
    print("PSS kB:", {word: [one.ztunnel.pss_kb(p) for p in one.ztunnel.pids(word)] for word in ("director", "worker")})


@bench(2)
async def test_a_killed_director_binds_nothing_anew_and_traffic_never_stops(one: ZtunnelBench) -> None:
    bound = {port: one.b.listening(port) for port in (15001, 15006, 15008)}
    assert set(map(tuple, bound.values())) == {("*",)}
    (director,) = one.ztunnel.pids("director")
    workers = one.ztunnel.pids("worker")
    await one.a.ask(one.b.ip, 8080)
    os.kill(director, signal.SIGKILL)
    for _ in range(20):
        assert await one.a.ask(one.b.ip, 8080) == f"{one.a.ip} hello".encode()
    await eventually(lambda: one.ztunnel.pids("director") not in ([], [director]))
    await one.ztunnel.ready()
    assert one.ztunnel.pids("worker") == workers
    assert {port: one.b.listening(port) for port in (15001, 15006, 15008)} == bound
    assert await one.a.ask(one.b.ip, 8080) == f"{one.a.ip} hello".encode()


@bench(3)
async def test_a_killed_worker_is_replaced_and_gets_everything_at_once(one: ZtunnelBench) -> None:
    await one.a.ask(one.b.ip, 8080)
    old = one.ztunnel.pids("worker")
    os.kill(old[0], signal.SIGKILL)
    for _ in range(30):
        assert await one.a.ask(one.b.ip, 8080) == f"{one.a.ip} hello".encode()
    await eventually(lambda: len(one.ztunnel.pids("worker")) == 2 and old[0] not in one.ztunnel.pids("worker"))
    os.kill(old[1], signal.SIGKILL)
    await eventually(lambda: old[1] not in one.ztunnel.pids("worker"))
    await one.ztunnel.ready()
    assert await one.a.ask(one.b.ip, 8080) == f"{one.a.ip} hello".encode()


@bench(4)
async def test_everything_killed_comes_back_without_control_plane_and_ca(one: ZtunnelBench) -> None:
    await one.a.ask(one.b.ip, 8080)
    await eventually(lambda: len(one.keys) == 2, "for keys in custody")
    await eventually(lambda: list(one.ztunnel.log.parent.glob("state/discovery.snapshot")), "for the snapshot")
    await one.control.__aexit__(None, None, None)
    one.ztunnel.kill_everything()
    await eventually(lambda: one.b.listening(15008) == [], "for the kernel to close what the dead held")
    one.agent.events.clear()
    one.ztunnel.start()
    await one.served()
    assert await one.a.ask(one.b.ip, 8080) == f"{one.a.ip} hello".encode()
    await one.control.__aenter__()


@bench(5, CONNECTION_TERMINATION_DEADLINE="60s")
async def test_a_stopped_ztunnel_lets_open_connections_end_and_leaves_nothing(one: ZtunnelBench) -> None:
    sock = one.a.socket()
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, (one.b.ip, 8080))
    reader, writer = await asyncio.open_connection(sock=sock)
    writer.write(b"first")
    assert await reader.read(100) == f"{one.a.ip} first".encode()
    stopping = asyncio.ensure_future(asyncio.to_thread(one.ztunnel.stop))
    await eventually(lambda: one.b.listening(15008) == [])
    writer.write(b"second")
    assert await reader.read(100) == f"{one.a.ip} second".encode()
    writer.write_eof()
    assert await reader.read() == b""
    assert await stopping == 0
    writer.close()


@bench(6)
async def test_a_policy_cuts_what_it_forbids_and_a_removed_pod_is_let_go(one: ZtunnelBench) -> None:
    sock = one.a.socket()
    sock.setblocking(False)
    await asyncio.get_running_loop().sock_connect(sock, (one.b.ip, 8080))
    reader, writer = await asyncio.open_connection(sock=sock)
    writer.write(b"first")
    assert await reader.read(100) == f"{one.a.ip} first".encode()
    one.control.apply(DENY)
    async with asyncio.timeout(PATIENCE_S):
        with contextlib.suppress(ConnectionError):
            assert await reader.read() == b""
    writer.close()
    one.agent.delete(one.b.uid)
    await eventually(lambda: one.b.uid not in one.agent.served())
    await eventually(lambda: one.b.listening(15008) == [])
    assert one.a.listening(15008) == ["*"]
    one.agent.add(one.b)
    await eventually(lambda: one.b.uid in one.agent.served())
    assert one.b.listening(15008) == ["*"]


@bench(7, IPV6_ENABLED="false")
async def test_without_ipv6_a_pod_has_listeners_of_ipv4_only_also_when_they_are_given_back(one: ZtunnelBench) -> None:
    expected = {15001: ["0.0.0.0"], 15006: ["0.0.0.0"], 15008: ["0.0.0.0"], 15053: ["0.0.0.0"]}
    assert {port: one.b.listening(port) for port in expected} == expected
    assert await one.a.ask(one.b.ip, 8080) == f"{one.a.ip} hello".encode()
    (director,) = one.ztunnel.pids("director")
    os.kill(director, signal.SIGKILL)
    await eventually(lambda: one.ztunnel.pids("director") not in ([], [director]))
    await one.ztunnel.ready()
    assert {port: one.b.listening(port) for port in expected} == expected
    assert await one.a.ask(one.b.ip, 8080) == f"{one.a.ip} hello".encode()


DENY = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: deny-all, namespace: shop}
spec: {action: DENY, rules: [{}]}
---
"""
