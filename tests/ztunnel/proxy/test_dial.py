"""Connecting without waiting."""

from __future__ import annotations

import socket

from ambient.model.address import Endpoint, parse_endpoint
from tests.support.tunnel import application, echo, poller, run, until
from ztunnel.proxy.dial import Dial


def attempt(target: Endpoint, timeout: float = 5.0) -> tuple[socket.socket, list[OSError | None], Dial]:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    outcome: list[OSError | None] = []
    return sock, outcome, Dial(poller(), sock, target, timeout, outcome.append)


def test_a_connection_on_this_host_is_up_and_a_refusal_is_told() -> None:
    async def scenario() -> None:
        async with application("127.0.0.1", echo) as port:
            sock, outcome, _ = attempt(parse_endpoint(f"127.0.0.1:{port}"))
            await until(lambda: outcome == [None])
            sock.close()
        refused, outcome, _ = attempt(parse_endpoint("127.0.0.1:1"))
        await until(lambda: isinstance(outcome[0] if outcome else None, ConnectionRefusedError))
        refused.close()

    run(scenario)


def test_a_silent_peer_times_out_and_a_cancelled_attempt_is_silent() -> None:
    async def scenario() -> None:
        # A listener whose queue is full answers no further SYN.
        with socket.socket() as full, socket.socket() as first, socket.socket() as second:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            target = parse_endpoint(f"127.0.0.1:{full.getsockname()[1]}")
            first.connect(full.getsockname())
            second.setblocking(False)
            second.connect_ex(full.getsockname())
            late, late_outcome, _ = attempt(target, 0.05)
            gone, gone_outcome, dial = attempt(target, 0.05)
            dial.cancel()
            await until(lambda: isinstance(late_outcome[0] if late_outcome else None, TimeoutError))
            assert not gone_outcome
            late.close()
            gone.close()

    run(scenario)
