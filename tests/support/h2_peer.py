"""A client of a pod's tunnel port made of ssl and h2: a stranger to our code."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from pathlib import Path

import h2.config
import h2.connection
import h2.events

from tests.support.tunnel import TestPod, World

CLIENT = "spiffe://cluster.local/ns/test/sa/client"


class Peer:
    """A client of 15008 made of ssl and h2: a stranger to our code."""

    def __init__(self, here: World, pod: TestPod, uris: Sequence[str] = (CLIENT,), *, alpn: str = "h2") -> None:
        self._pod = pod
        path = Path(here.folder) / "peer.pem"
        path.write_bytes(here.authority.leaf(uris))
        self.context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        self.context.check_hostname = False
        self.context.load_verify_locations(cadata=here.authority.roots)
        self.context.load_cert_chain(path)
        self.context.set_alpn_protocols([alpn])
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True, header_encoding=None))
        self.events: list[h2.events.Event] = []

    async def connect(self, source: str = "") -> None:
        local = (source, 0) if source else None
        self.reader, self.writer = await asyncio.open_connection(*self._pod.hbone, ssl=self.context, local_addr=local)
        self.h2.initiate_connection()
        self.writer.write(self.h2.data_to_send())

    async def ask(self, authority: str, method: str = "CONNECT", **fields: str) -> tuple[int, dict[bytes, bytes]]:
        """Open a stream; gives status and fields of the answer (0: the stream was reset)."""
        number = self.h2.get_next_available_stream_id()
        headers = [(":method", method), (":authority", authority)]
        if method != "CONNECT":
            headers += [(":scheme", "https"), (":path", "/")]
        self.h2.send_headers(number, [*headers, *fields.items()])
        self.writer.write(self.h2.data_to_send())
        while True:
            for event in self.events:
                if getattr(event, "stream_id", None) != number:
                    continue
                if isinstance(event, h2.events.ResponseReceived):
                    answer = dict(event.headers)
                    return int(answer[b":status"]), answer  # type: ignore[index, arg-type]
                if isinstance(event, h2.events.StreamReset):
                    return 0, {}
            await self.pump()

    async def pump(self) -> None:
        data = await self.reader.read(65536)
        if not data:
            raise ConnectionError("closed")
        self.events += self.h2.receive_data(data)
        self.writer.write(self.h2.data_to_send())

    def close(self) -> None:
        self.writer.transport.abort()
