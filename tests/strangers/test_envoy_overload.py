"""A real Envoy that may use less memory than it does refuses new requests, and one that may use more answers them."""

from __future__ import annotations

import asyncio
import contextlib
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

    asyncio.run(asyncio.wait_for(scenario(), 200))


def test_it_answers_while_it_has_less(tmp_path: Path) -> None:
    async def scenario() -> None:
        listen = free("127.0.0.14")
        async with envoy_here(config(listen, Bearable(heap_mib=8192)), listen, tmp_path):
            assert await status(listen) == 200

    asyncio.run(asyncio.wait_for(scenario(), 200))


async def ends(reader: asyncio.StreamReader) -> bool:
    """Once the other side has closed the connection."""
    with contextlib.suppress(ConnectionError):
        return await reader.read() == b""
    return True


async def answered(listen: tuple[str, int]) -> bool:
    with contextlib.suppress(ConnectionError, IndexError):
        return await status(listen) == 200
    return False


def test_connections_beyond_those_that_it_may_have_are_closed_and_where_none_count_they_are_not(tmp_path: Path) -> None:
    """As that of readiness: a proxy that is full is not one to be replaced."""

    async def scenario() -> None:
        listen, told = free("127.0.0.14"), free("127.0.0.15")
        made = config(listen, Bearable(connections=5))
        uncounted = config(told, Bearable())["static_resources"]["listeners"][0]
        uncounted |= {"name": "told", "ignore_global_conn_limit": True}
        made["static_resources"]["listeners"].append(uncounted)
        async with envoy_here(made, listen, tmp_path):
            held = [await asyncio.open_connection(*listen) for _ in range(20)]
            waiting = {asyncio.create_task(ends(reader)) for reader, _ in held}
            while len(waiting) > 5:
                _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            assert await answered(told)
            # Room that a connection of before has left is given to the next.
            while await answered(listen):
                held.append(await asyncio.open_connection(*listen))
            for _, writer in held:
                writer.close()
            while not await answered(listen):
                pass
            for one in waiting:
                one.cancel()

    asyncio.run(asyncio.wait_for(scenario(), 200))
