"""Names looked up for Envoy: asked of the pod's own resolvers, and answered without a single address where one of them
is none that Envoy is to dial. So what a name leads to is what was looked at, whoever answers for it, at any time.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from ambient.errors import InvalidInput, Unavailable
from ambient.log import LogLimit
from ambient.model.dns import (
    AAAA,
    IN,
    REFUSED,
    A,
    Found,
    Query,
    answers_to,
    read_answer,
    read_query,
    write_answer,
    write_failure,
    write_query,
)
from ambient.model.dns import with_id as numbered
from ambient.model.forbidden import nowhere

RESOLV_CONF: Final = Path("/etc/resolv.conf")
TRY_S: Final = 2.5
TRIES: Final = 2
IN_FLIGHT_LIMIT: Final = 512
"""Questions that others are asked at a time."""
SHARE: Final = 128
"""Of these about names with the same last two labels: below one domain that does not answer there is no end of names,
and those of others are to be found meanwhile."""
ASKERS_LIMIT: Final = 64
"""That wait for the same answer."""
LINES: Final = 5
"""Of the log in a second, of each kind: names are as many as clients make up."""
LONGEST_S: Final = 30
"""Seconds that an address is believed at most, whatever its owner says."""
DNS_PORT: Final = 53
_MOST: Final = 16
"""Addresses that are told of a name: they fit into the smallest datagram."""

_log = logging.getLogger("waypoint.names")

Address = tuple[str, int]


def nameservers(text: str) -> list[Address]:
    """Those of a resolv.conf, in its order (resolv.conf(5))."""
    lines = (line.split() for line in text.splitlines())
    return [(line[1], DNS_PORT) for line in lines if len(line) > 1 and line[0] == "nameserver"]


class Names:
    """A resolver on a UDP port of the loopback. `refusal(address)`: why it is not to be dialled, "" when it may be;
    `kind` is what its metrics are called by; `clock` in seconds."""

    def __init__(
        self,
        kind: str,
        refusal: Callable[[str], str],
        servers: Sequence[Address],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._kind = kind
        self._refusal = refusal
        self._servers = servers
        self._transport: asyncio.DatagramTransport | None = None
        self._clock = clock
        self._asked: dict[tuple[str, int], list[tuple[Query, Address]]] = {}
        self._shares: Counter[str] = Counter()
        self._lines = {"refused": LogLimit(LINES), "failed": LogLimit(LINES)}
        self._under_way: set[asyncio.Task[None]] = set()
        self._answered = {"found": 0, "refused": 0, "failed": 0}

    async def start(self, port: int) -> int:
        """Answer from now on; gives the port (0: one that is free). Raises Unavailable."""
        loop = asyncio.get_running_loop()
        try:
            self._transport, _ = await loop.create_datagram_endpoint(
                lambda: _Questions(self._take), local_addr=("127.0.0.1", port)
            )
        except OSError as error:
            raise Unavailable("cannot listen", f"UDP port {port}", error.strerror or str(error)) from None
        found: int = self._transport.get_extra_info("sockname")[1]
        return found

    async def stop(self) -> None:
        if self._transport is not None:
            self._transport.close()
        for task in self._under_way:
            task.cancel()
        await asyncio.gather(*self._under_way, return_exceptions=True)

    def render(self) -> Iterator[str]:
        """Metrics as text."""
        for result, count in self._answered.items():
            yield f'ambient_waypoint_names_total{{kind="{self._kind}",result="{result}"}} {count}\n'

    def _take(self, data: bytes, peer: Address) -> None:
        try:
            query = read_query(data)
        except InvalidInput:
            return
        if query.qclass != IN or query.qtype not in (A, AAAA) or not query.name or not self._admits(query):
            self._tell(write_failure(query, REFUSED), peer, "failed")
            return
        waiting = self._asked.setdefault((query.name, query.qtype), [])
        waiting.append((query, peer))
        if len(waiting) == 1:
            self._shares[_share(query.name)] += 1
            task = asyncio.ensure_future(self._answer(query))
            self._under_way.add(task)
            task.add_done_callback(self._under_way.discard)

    def _admits(self, query: Query) -> bool:
        waiting = self._asked.get((query.name, query.qtype))
        if waiting is not None:
            return len(waiting) < ASKERS_LIMIT
        return len(self._asked) < IN_FLIGHT_LIMIT and self._shares[_share(query.name)] < SHARE

    async def _answer(self, query: Query) -> None:
        """All that have asked the same meanwhile."""
        try:
            result, found = await self._judged(query)
        finally:
            waiting = self._asked.pop((query.name, query.qtype))
            self._shares -= Counter((_share(query.name),))
        version = 4 if query.qtype == A else 6
        addresses = [str(one) for one in found.addresses if one.version == version][:_MOST]
        ttl = min(found.ttl, LONGEST_S)
        for one, peer in waiting:
            failed = result == "failed"
            answer = write_failure(one) if failed else write_answer(one, addresses, limit=one.limit, ttl_s=ttl)
            self._tell(answer, peer, result)

    async def _judged(self, query: Query) -> tuple[str, Found]:
        """What becomes of a question, and what is told. What is refused is an answer without addresses, and no failure:
        then what had been found before would go on."""
        none = Found((), LONGEST_S, False)
        if nowhere(query.name):
            return self._refused(query.name, "it is a name that nobody is sent to"), none
        try:
            found = await self._look_up(query)
        except (InvalidInput, OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            if self._lines["failed"].allows(self._clock()):
                why = str(error) or type(error).__name__
                _log.info("%s cannot be looked up: %s%s", query.name, why, self._lines["failed"].note())
            return "failed", none
        wrong = next(filter(None, (self._refusal(str(one)) for one in found.addresses)), "")
        return (self._refused(query.name, wrong), none) if wrong else ("found", found)

    def _refused(self, name: str, why: str) -> str:
        lines = self._lines["refused"]
        if lines.allows(self._clock()):
            _log.warning("%s is not asked: %s%s", name, why, lines.note())
        return "refused"

    def _tell(self, answer: bytes, peer: Address, result: str) -> None:
        self._answered[result] += 1
        if self._transport is not None and not self._transport.is_closing():
            self._transport.sendto(answer, peer)

    async def _look_up(self, query: Query) -> Found:
        """Raises InvalidInput, OSError, TimeoutError or IncompleteReadError of the last try."""
        failed: Exception = InvalidInput("resolvers", str(RESOLV_CONF), "there is none")
        for number in range(max(TRIES, len(self._servers)) if self._servers else 0):
            server = self._servers[number % len(self._servers)]
            try:
                async with asyncio.timeout(TRY_S):
                    found = await self._ask(query, server, stream=False)
                    return await self._ask(query, server, stream=True) if found.truncated else found
            except (InvalidInput, OSError, TimeoutError, asyncio.IncompleteReadError) as error:
                failed = error
        raise failed

    async def _ask(self, query: Query, server: Address, *, stream: bool) -> Found:
        number = int.from_bytes(os.urandom(2), "big")
        question = numbered(write_query(query.name, query.qtype), number)
        asked = read_query(question)
        over = _by_stream if stream else _by_datagram
        return read_answer(await over(server, question, lambda data: answers_to(asked, number, data)))


def _share(name: str) -> str:
    return ".".join(name.split(".")[-2:])


class _Questions(asyncio.DatagramProtocol):
    def __init__(self, take: Callable[[bytes, Address], None]) -> None:
        self._take = take

    def datagram_received(self, data: bytes, addr: Address) -> None:
        self._take(data, addr)


async def _by_datagram(server: Address, question: bytes, fits: Callable[[bytes], bool]) -> bytes:
    """From a port of its own; what does not fit is somebody else's, and waited past."""
    loop = asyncio.get_running_loop()
    family = socket.AF_INET6 if ":" in server[0] else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
        sock.connect(server)
        await loop.sock_sendall(sock, question)
        while not fits(data := await loop.sock_recv(sock, 65_535)):
            pass
        return data


async def _by_stream(server: Address, question: bytes, fits: Callable[[bytes], bool]) -> bytes:
    """With its length before it (RFC 1035, section 4.2.2)."""
    reader, writer = await asyncio.open_connection(*server)
    try:
        writer.write(len(question).to_bytes(2, "big") + question)
        data = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
        if not fits(data):
            raise InvalidInput("DNS answer", server[0], "to another question")
        return data
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
