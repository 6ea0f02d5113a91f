"""Accepting: a few at a time, and a pause when descriptors run out."""

from __future__ import annotations

import asyncio
import errno
import socket

import pytest

from tests.support.tunnel import poller, run, until
from ztunnel.proxy.accept import Acceptor


class Exhausted(socket.socket):
    """A listener whose next accepts fail as if the process had no descriptors left."""

    failures = 0

    def _accept(self) -> tuple[int, object]:
        if self.failures:
            self.failures -= 1
            raise OSError(errno.EMFILE, "Too many open files")
        taken: tuple[int, object] = super()._accept()  # type: ignore[misc]
        return taken


def listener(failures: int = 0) -> Exhausted:
    sock = Exhausted()
    sock.bind(("127.0.0.1", 0))
    sock.listen()
    sock.failures = failures
    return sock


def test_a_scenario_that_fails_while_connections_are_open_fails_at_once() -> None:
    sock = listener()

    async def scenario() -> None:
        Acceptor(poller(), sock, lambda c, _: c.close(), lambda _: None, lambda *_: None)
        _, writer = await asyncio.open_connection(*sock.getsockname())
        raise LookupError(writer)

    with pytest.raises(LookupError):
        run(scenario)
    sock.close()


def test_running_out_of_descriptors_pauses_and_loses_no_connection() -> None:
    async def scenario() -> None:
        taken: list[socket.socket] = []
        counts: list[str] = []
        sock = listener(failures=2)
        acceptor = Acceptor(poller(), sock, lambda c, _: taken.append(c), counts.append, lambda *_: None)
        _, writer = await asyncio.open_connection(*sock.getsockname())
        await until(lambda: len(taken) == 1)
        assert counts == ["accept_errors"] * 2
        writer.close()
        taken[0].close()
        acceptor.close()

    run(scenario)


def test_at_the_end_what_is_queued_is_taken_and_nothing_after_it() -> None:
    async def scenario() -> None:
        taken: list[socket.socket] = []
        counts: list[str] = []
        sock = listener()
        acceptor = Acceptor(poller(), sock, lambda c, _: taken.append(c), counts.append, lambda *_: None)
        clients = [socket.create_connection(sock.getsockname()) for _ in range(40)]
        acceptor.finish()
        assert len(taken) == 40
        clients.append(socket.create_connection(sock.getsockname()))
        await asyncio.sleep(0)
        assert len(taken) == 40
        sock.shutdown(socket.SHUT_RDWR)
        again = Acceptor(poller(), sock, lambda *_: None, counts.append, lambda *_: None)
        again.finish()
        assert counts == []
        acceptor.close()
        for one in (*taken, *clients):
            one.close()

    run(scenario)


def test_a_taker_that_crashes_costs_its_connection_only() -> None:
    async def scenario() -> None:
        crashes: list[str] = []
        sock = listener()

        def take(connection: socket.socket, peer: object) -> None:
            raise RuntimeError("bug")

        acceptor = Acceptor(poller(), sock, take, lambda _: None, lambda where, _: crashes.append(where))
        for at in range(2):
            reader, writer = await asyncio.open_connection(*sock.getsockname())
            assert await reader.read() == b""
            assert len(crashes) == at + 1
            writer.close()
        acceptor.close()

    run(scenario)


def test_a_paused_acceptor_leaves_connections_to_others() -> None:
    async def scenario() -> None:
        sock, taken = listener(), list[socket.socket]()
        other = socket.socket(fileno=socket.dup(sock.fileno()))
        first = Acceptor(poller(), sock, lambda c, _: c.close(), lambda _: None, lambda *_: None)
        second = Acceptor(poller(), other, lambda c, _: taken.append(c), lambda _: None, lambda *_: None)
        first.pause()
        _, writer = await asyncio.open_connection(*sock.getsockname())
        await until(lambda: len(taken) == 1)
        writer.close()
        taken[0].close()
        second.close()
        sock.close()

    run(scenario)


def test_who_has_to_wait_waits_in_the_kernel_and_is_taken_when_it_may() -> None:
    async def scenario() -> None:
        taken: list[socket.socket] = []
        held = [True]
        asked: list[bool] = []

        def pause() -> float:
            asked.append(held[0])
            return 0.001 if held[0] else 0.0

        sock = listener()
        acceptor = Acceptor(poller(), sock, lambda c, _: taken.append(c), lambda _: None, lambda *_: None, pause)
        clients = [socket.create_connection(sock.getsockname()) for _ in range(3)]
        await until(lambda: len(asked) > 3)
        assert not taken
        held[0] = False
        await until(lambda: len(taken) == 3)
        held[0] = True
        clients.append(socket.create_connection(sock.getsockname()))
        await until(lambda: asked[-1])
        acceptor.finish()
        assert len(taken) == 4
        acceptor.close()
        for one in (*taken, *clients):
            one.close()

    run(scenario)


def test_who_is_ahead_lets_others_go_first_but_not_for_ever() -> None:
    async def scenario() -> None:
        sock, taken, others = listener(), list[socket.socket](), list[socket.socket]()
        other = socket.socket(fileno=socket.dup(sock.fileno()))
        asked: list[bool] = []

        def ahead() -> bool:
            asked.append(True)
            return True

        one = poller()
        first = Acceptor(one, sock, lambda c, _: taken.append(c), lambda _: None, lambda *_: None, ahead=ahead)
        second = Acceptor(
            one, other, lambda c, _: others.append(c), lambda _: None, lambda *_: None, ahead=lambda: False
        )
        clients = [socket.create_connection(sock.getsockname()) for _ in range(3)]
        await until(lambda: len(others) == 3)
        assert asked
        assert not taken
        second.close()
        clients.append(socket.create_connection(sock.getsockname()))
        await until(lambda: len(taken) == 1)
        clients.append(socket.create_connection(sock.getsockname()))
        first.finish()
        assert len(taken) == 2
        for one_end in (*taken, *others, *clients):
            one_end.close()
        first.close()

    run(scenario)
