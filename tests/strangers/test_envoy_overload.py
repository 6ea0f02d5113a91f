"""A real Envoy that may use less memory than it does refuses new requests, and one that may use more answers them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from ambient.waypoint.overload import Bearable, overload
from ambient.waypoint.tunnel import manager, router
from tests.support.envoy_here import envoy_here, free
from tests.support.peers import listener


def config(listen: tuple[str, int], most: Bearable) -> dict[str, Any]:
    route = {"match": {"prefix": "/"}, "direct_response": {"status": 200}}
    hosts = [{"name": "all", "domains": ["*"], "routes": [route]}]
    made = manager(stat_prefix="x", route_config={"virtual_hosts": hosts}, http_filters=[router()])
    return {"static_resources": {"listeners": [listener("door", *listen, made)]}, "overload_manager": overload(most)}


async def status(listen: tuple[str, int]) -> int:
    reader, writer = await asyncio.open_connection(*listen)
    writer.write(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
    answer = await reader.read()
    writer.close()
    return int(answer.split()[1])


def test_it_refuses_while_it_has_more_than_it_may(tmp_path: Path) -> None:
    async def scenario() -> None:
        listen = free("127.0.0.14")
        async with envoy_here(config(listen, Bearable(heap_mib=1)), listen, tmp_path):
            while await status(listen) != 503:
                pass

    asyncio.run(asyncio.wait_for(scenario(), 60))


def test_it_answers_while_it_has_less(tmp_path: Path) -> None:
    async def scenario() -> None:
        listen = free("127.0.0.14")
        async with envoy_here(config(listen, Bearable(heap_mib=8192)), listen, tmp_path):
            assert await status(listen) == 200

    asyncio.run(asyncio.wait_for(scenario(), 60))
