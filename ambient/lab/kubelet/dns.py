"""The node's DNS server: UDP and TCP around `Zone.resolve`. Answers from the current zone, forwards nothing."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, cast

import dnslib  # type: ignore[import-untyped]

from ambient.lab.kubelet.names import Answer, Zone
from ambient.model.address import IpAddress

TTL_S: Final = 5
_PLAIN_UDP: Final = 512
_LONGEST_CHAIN: Final = 8
_MAX_UDP: Final = 1232
_TCP_IDLE_S: Final = 10


def reply(zone: Zone, query: bytes, *, udp: bool) -> bytes | None:
    """The wire answer to a wire query; None when it is not worth one (not a query, cannot be read)."""
    try:
        request = dnslib.DNSRecord.parse(query)
    except (dnslib.DNSError, ValueError, IndexError):
        return None
    if request.header.qr or len(request.questions) != 1:
        return None
    response = request.reply(ra=1, aa=1)
    if request.header.opcode != dnslib.OPCODE.QUERY:
        response.header.rcode = dnslib.RCODE.NOTIMP
        return bytes(response.pack())
    question = request.q
    answer = zone.resolve(str(question.qname))
    response.header.rcode = int(answer.code)
    _fill(response, str(question.qname), question.qtype, answer)
    for _ in range(_LONGEST_CHAIN):
        if not answer.alias or question.qtype == dnslib.QTYPE.CNAME:
            break
        # As CoreDNS does: what a name of ours stands for is in the same answer.
        alias = answer.alias
        answer = zone.resolve(alias)
        _fill(response, alias, question.qtype, answer)
    if not response.rr:
        response.add_auth(_start_of_authority(zone.domain))
    limit = _PLAIN_UDP
    for extra in request.ar:
        if extra.rtype == dnslib.QTYPE.OPT:
            limit = max(_PLAIN_UDP, min(_MAX_UDP, int(extra.rclass)))
            response.add_ar(dnslib.EDNS0(udp_len=_MAX_UDP))
    packed = bytes(response.pack())
    if udp and len(packed) > limit:
        return bytes(response.truncate().pack())
    return packed


def _fill(response: dnslib.DNSRecord, name: str, qtype: int, answer: Answer) -> None:
    every = qtype == dnslib.QTYPE.ANY

    def add(rtype: str, rdata: object) -> None:
        response.add_answer(dnslib.RR(name, getattr(dnslib.QTYPE, rtype), ttl=TTL_S, rdata=rdata))

    if answer.alias:
        add("CNAME", dnslib.CNAME(answer.alias))
    for ip in random.sample(answer.addresses, len(answer.addresses)):
        if ip.version == 4 and (every or qtype == dnslib.QTYPE.A):
            add("A", dnslib.A(str(ip)))
        if ip.version == 6 and (every or qtype == dnslib.QTYPE.AAAA):
            add("AAAA", dnslib.AAAA(str(ip)))
    if every or qtype == dnslib.QTYPE.SRV:
        for srv in answer.services:
            add("SRV", dnslib.SRV(0, 100, srv.port, srv.target))
    if answer.pointer and (every or qtype == dnslib.QTYPE.PTR):
        add("PTR", dnslib.PTR(answer.pointer))


def _start_of_authority(domain: str) -> dnslib.RR:
    times = (1, 7200, 1800, 86400, TTL_S)
    soa = dnslib.SOA(f"ns.dns.{domain}", f"hostmaster.{domain}", times)
    return dnslib.RR(domain, dnslib.QTYPE.SOA, ttl=TTL_S, rdata=soa)


class _Datagrams(asyncio.DatagramProtocol):
    def __init__(self, current: Callable[[], Zone]) -> None:
        self._current = current
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.DatagramTransport, transport)

    def datagram_received(self, data: bytes, addr: tuple[str | object, int]) -> None:
        answer = reply(self._current(), data, udp=True)
        if answer is not None and self._transport is not None:
            self._transport.sendto(answer, addr)


class DnsServer:
    """Listens on port 53 of the given addresses until closed. `current` gives the zone to answer from."""

    def __init__(self, current: Callable[[], Zone]) -> None:
        self._current = current
        self._closers: list[Callable[[], None]] = []

    async def start(self, addresses: Sequence[IpAddress], port: int = 53) -> None:
        """Raises OSError when an address is not there or taken."""
        loop = asyncio.get_running_loop()
        for address in addresses:
            family = socket.AF_INET if address.version == 4 else socket.AF_INET6
            transport, _ = await loop.create_datagram_endpoint(
                lambda: _Datagrams(self._current), local_addr=(str(address), port), family=family
            )
            self._closers.append(transport.close)
            server = await asyncio.start_server(self._stream, str(address), port, family=family)
            self._closers.append(server.close)

    def close(self) -> None:
        for close in self._closers:
            close()

    async def _stream(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                async with asyncio.timeout(_TCP_IDLE_S):
                    size = int.from_bytes(await reader.readexactly(2), "big")
                    query = await reader.readexactly(size)
                answer = reply(self._current(), query, udp=False)
                if answer is None:
                    return
                writer.write(len(answer).to_bytes(2, "big") + answer)
                await writer.drain()
        except (TimeoutError, asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            with suppress(ConnectionError):
                await writer.wait_closed()
