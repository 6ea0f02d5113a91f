"""Names looked up for Envoy: whatever the resolver says, no address gets through that is not to be dialled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

import pytest

from ambient.model.dns import (
    AAAA,
    REFUSED,
    SERVER_FAILURE,
    A,
    Found,
    read_answer,
    read_query,
    write_answer,
    write_query,
)
from ambient.model.forbidden import forbidden, read_reach
from ambient.waypoint.agent.names import ASKERS_LIMIT, LINES, SHARE, Address, Names, nameservers
from tests.support.waiting import eventually

GOOD = "10.20.0.1"
REACH = read_reach("10.20.0.0/16")


class Resolver(asyncio.DatagramProtocol):
    """Says what it is told to; `cut`: that there is more. Silent about what it does not know."""

    def __init__(self, said: Mapping[str, list[str]], *, cut: bool = False) -> None:
        self.said, self.cut, self.heard = said, cut, 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport

    def datagram_received(self, data: bytes, addr: Address) -> None:
        self.heard += 1
        query = read_query(data)
        if query.name in self.said:
            self.transport.sendto(b"\xff" * 40, addr)
            answer = write_answer(query, self.said[query.name], ttl_s=7, limit=1 if self.cut else None)
            self.transport.sendto(answer, addr)


@asynccontextmanager
async def asking(resolver: Resolver, refusal: Callable[[str], str]) -> AsyncIterator[tuple[Names, Address]]:
    """What asks the resolver, over either transport, and its address."""
    loop = asyncio.get_running_loop()

    async def by_stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size = int.from_bytes(await reader.readexactly(2), "big")
        query = read_query(await reader.readexactly(size))
        answer = write_answer(query, resolver.said[query.name])
        writer.write(len(answer).to_bytes(2, "big") + answer)
        writer.close()

    # First the port of TCP: of these many are taken by others' connections.
    stream = await asyncio.start_server(by_stream, "127.0.0.1", 0)
    server: Address = stream.sockets[0].getsockname()
    transport, _ = await loop.create_datagram_endpoint(lambda: resolver, local_addr=server)
    names = Names("x", refusal, [server])
    try:
        yield names, ("127.0.0.1", await names.start(0))
    finally:
        await names.stop()
        stream.close()
        await stream.wait_closed()
        transport.close()


class Asker(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.answers: asyncio.Queue[bytes] = asyncio.Queue()

    def datagram_received(self, data: bytes, addr: Address) -> None:
        self.answers.put_nowait(data)


async def ask(where: Address, *questions: bytes) -> list[bytes]:
    transport, asker = await asyncio.get_running_loop().create_datagram_endpoint(Asker, remote_addr=where)
    try:
        for one in questions:
            transport.sendto(one)
        async with asyncio.timeout(60):
            return [await asker.answers.get() for _ in questions]
    finally:
        transport.close()


def found(said: Mapping[str, list[str]], name: str, qtype: int = A, *, cut: bool = False, own: bool = False) -> Found:
    """What Envoy is told; `own`: of names that are written."""

    async def scenario() -> Found:
        async with asking(Resolver(said, cut=cut), forbidden if own else REACH.refusal) as (names, where):
            (answer,) = await ask(where, write_query(name, qtype))
            counted = dict(one.rpartition(" ")[::2] for one in names.render())
            assert sum(map(int, counted.values())) == 1
            return read_answer(answer)

    return asyncio.run(scenario())


def test_an_address_that_may_be_dialled_is_told_with_its_ttl() -> None:
    said = {"a.example.com": [GOOD, "10.20.0.2"], "six.example.com": ["2606:4700::1"]}
    told = found(said, "a.example.com")
    assert (sorted(map(str, told.addresses)), told.ttl) == ([GOOD, "10.20.0.2"], 7)
    assert [str(one) for one in found(said, "six.example.com", AAAA).addresses] == ["2606:4700::1"]


@pytest.mark.parametrize("bad", ["127.0.0.1", "169.254.169.254", "10.1.2.3", "0.0.0.0", "240.240.0.1"])
def test_one_address_that_may_not_takes_all_of_them_away(bad: str) -> None:
    assert found({"a.example.com": [GOOD, bad]}, "a.example.com").addresses == ()
    assert found({"a.example.com": [bad]}, "a.example.com").addresses == ()


@pytest.mark.parametrize(
    "bad", ["::ffff:169.254.169.254", "::ffff:10.1.2.3", "::ffff:0:a00:1", "fd00::1", "::1", "4000::1", "3fff::1"]
)
def test_one_address_of_ipv6_that_may_not_takes_all_of_them_away(bad: str) -> None:
    assert found({"a.example.com": ["2606:4700::1", bad]}, "a.example.com", AAAA).addresses == ()
    assert found({"a.example.com": [bad]}, "a.example.com", AAAA).addresses == ()


def test_names_that_are_written_may_lead_to_private_addresses_and_not_to_the_machines_own() -> None:
    assert found({"db.corp": ["10.1.2.3"]}, "db.corp", own=True).addresses
    assert found({"db.corp": ["10.1.2.3", "169.254.169.254"]}, "db.corp", own=True).addresses == ()
    assert found({"metadata.google.internal": [GOOD]}, "metadata.google.internal", own=True).addresses == ()


def test_what_is_cut_short_is_asked_for_again_over_tcp_and_looked_at_as_well() -> None:
    many = [f"10.20.1.{number}" for number in range(1, 40)]
    assert len(found({"a.example.com": many}, "a.example.com", cut=True).addresses) == 16
    assert found({"a.example.com": [*many, "127.0.0.1"]}, "a.example.com", cut=True).addresses == ()


def test_other_questions_are_not_passed_on_and_junk_is_not_answered() -> None:
    async def scenario() -> None:
        resolver = Resolver({})
        async with asking(resolver, forbidden) as (_, where):
            text, odd = write_query("a.example.com", 16), write_query("a@b", A)
            junk = await asyncio.get_running_loop().create_datagram_endpoint(Asker, remote_addr=where)
            junk[0].sendto(b"junk")
            assert [one[3] & 15 for one in await ask(where, text, odd)] == [REFUSED, REFUSED]
            assert (resolver.heard, junk[1].answers.qsize()) == (0, 0)
            junk[0].close()

    asyncio.run(scenario())


def test_without_a_resolver_nothing_is_found() -> None:
    async def scenario() -> bytes:
        names = Names("x", forbidden, ())
        (answer,) = await ask(("127.0.0.1", await names.start(0)), write_query("a.example.com", A))
        await names.stop()
        return answer

    answer = asyncio.run(scenario())
    assert (answer[3] & 15, answer[7]) == (SERVER_FAILURE, 0)


class Held(Resolver):
    """Answers nothing until it is told to."""

    def __init__(self, said: Mapping[str, list[str]]) -> None:
        super().__init__(said)
        self.held: list[tuple[bytes, Address]] = []

    def datagram_received(self, data: bytes, addr: Address) -> None:
        self.held.append((data, addr))

    def names(self) -> list[str]:
        return [read_query(data).name for data, _ in self.held]

    def release(self) -> None:
        for one in self.held:
            super().datagram_received(*one)


def test_who_asks_the_same_meanwhile_gets_the_same_answer_and_not_without_end() -> None:
    async def scenario() -> None:
        resolver = Held({"a.example.com": [GOOD], "last.example.com": [GOOD]})
        async with asking(resolver, REACH.refusal) as (_, where):
            same = [write_query("a.example.com", A)] * (ASKERS_LIMIT + 3)
            asked = asyncio.ensure_future(ask(where, *same, write_query("last.example.com", A)))
            await eventually(lambda: "last.example.com" in resolver.names())
            assert resolver.names().count("a.example.com") == 1
            resolver.release()
            codes = [one[3] & 15 for one in await asked]
            assert (codes.count(0), codes.count(REFUSED)) == (ASKERS_LIMIT + 1, 3)

    asyncio.run(scenario())


def test_a_domain_that_does_not_answer_leaves_others_their_share() -> None:
    async def scenario() -> None:
        async with asking(Resolver({"a.example.org": [GOOD]}), REACH.refusal) as (_, where):
            transport, asker = await asyncio.get_running_loop().create_datagram_endpoint(Asker, remote_addr=where)
            for number in range(SHARE + 1):
                transport.sendto(write_query(f"n{number}.slow.example.com", A))
            async with asyncio.timeout(60):
                refused = await asker.answers.get()
            assert refused[3] & 15 == REFUSED
            (answer,) = await ask(where, write_query("a.example.org", A))
            assert [str(one) for one in read_answer(answer).addresses] == [GOOD]
            transport.close()

    asyncio.run(scenario())


def test_names_that_clients_make_up_do_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        names = Names("x", forbidden, (), clock=lambda: 0.0)
        where = "127.0.0.1", await names.start(0)
        await ask(where, *(write_query(f"n{number}.localhost", A) for number in range(40)))
        await names.stop()

    asyncio.run(scenario())
    assert len(caplog.records) == LINES


def test_resolvers_are_those_of_the_pod() -> None:
    text = "search a b\n# nameserver 1.1.1.1\nnameserver 10.96.0.10\nnameserver\nnameserver fd00::a\noptions ndots:5\n"
    assert nameservers(text) == [("10.96.0.10", 53), ("fd00::a", 53)]
