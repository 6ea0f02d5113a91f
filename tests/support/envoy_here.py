"""Envoy on the test's own loopback device, beside the small world of `tests.support.tunnel`: a gateway, a waypoint."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from tests.support.mint import Leaf, Mint
from tests.support.peers import cluster, listener, logged, tls, tunnel_manager
from tests.support.waiting import PATIENCE_S

_TYPE = "type.googleapis.com/envoy.extensions"


def gateway(mint: Mint, leaf: Leaf, listen: tuple[str, int], authority: str, target: tuple[str, int]) -> dict[str, Any]:
    """As an east-west gateway: a CONNECT to `authority` is carried, unread, to the tunnel port `target`."""
    door = listener(
        "door",
        *listen,
        {"name": "hcm", "typed_config": tunnel_manager(authority)},
        transport_socket=tls(mint, leaf, "spiffe://cluster.local/", server=True),
    )
    return {"static_resources": {"listeners": [door], "clusters": [cluster("app", *target)]}}


def behind_proxy_protocol(listen: tuple[str, int], target: tuple[str, int]) -> dict[str, Any]:
    """As a waypoint in the sandwich: believes the PROXY header, and logs what it says of address and identity."""
    rule = {"tlv_type": 0xD0, "on_tlv_present": {"key": "identity"}}
    believe = {
        "@type": f"{_TYPE}.filters.listener.proxy_protocol.v3.ProxyProtocol",
        "rules": [rule],
    }
    format_ = (
        "from=%DOWNSTREAM_REMOTE_ADDRESS% to=%DOWNSTREAM_LOCAL_ADDRESS% "
        "as=%DYNAMIC_METADATA(envoy.filters.listener.proxy_protocol:identity)%\n"
    )
    proxy = {
        "@type": f"{_TYPE}.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": "in",
        "cluster": "app",
        "access_log": logged(format_),
    }
    door = listener("door", *listen, {"name": "tcp", "typed_config": proxy})
    door["listener_filters"] = [{"name": "proxy_protocol", "typed_config": believe}]
    return {"static_resources": {"listeners": [door], "clusters": [cluster("app", *target)]}}


@asynccontextmanager
async def envoy_here(config: dict[str, Any], listen: tuple[str, int], folder: Path) -> AsyncIterator[Path]:
    """Envoy, from when it listens; gives the file of what it says."""
    file, log = folder / "envoy.json", folder / "envoy.log"
    file.write_text(json.dumps({"node": {"id": "stranger", "cluster": "strangers"}, **config}))
    binary = str(Path(sys.executable).with_name("envoy"))
    argv = ["-c", str(file), "--concurrency", "1", "--disable-hot-restart", "--log-level", "warn"]
    with log.open("wb") as said:
        process = await asyncio.create_subprocess_exec(binary, *argv, stdout=said, stderr=said)
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not await _answers(listen):
                assert process.returncode is None, log.read_text(errors="replace")[-3000:]
        yield log
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _answers(listen: tuple[str, int]) -> bool:
    try:
        _, writer = await asyncio.open_connection(*listen)
    except OSError:
        await asyncio.sleep(0.02)
        return False
    writer.transport.abort()
    return True


def free(host: str) -> tuple[str, int]:
    with socket.socket() as sock:
        sock.bind((host, 0))
        found: tuple[str, int] = sock.getsockname()
        return found
