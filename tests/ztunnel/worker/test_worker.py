"""A worker carries connections, end to end, over loopback."""

from __future__ import annotations

import asyncio

from tests.support.tunnel import application, echo, run, until, world


def test_a_connection_goes_out_through_a_tunnel_and_comes_in_at_the_application() -> None:
    async def scenario() -> None:
        async with world() as here, application("127.0.0.12", echo) as port:
            client = await here.pod("client", "127.0.0.11")
            server = await here.pod("server", "127.0.0.12")
            here.route(client, server, port)
            reader, writer = await asyncio.open_connection(*client.outbound)
            writer.write(b"through the mesh")
            writer.write_eof()
            assert await reader.read() == b"through the mesh"
            writer.close()
            await until(lambda: here.log().count("connection complete") == 2)
            assert here.log().count('src.identity="spiffe://cluster.local/ns/test/sa/client"') == 4

    run(scenario)
