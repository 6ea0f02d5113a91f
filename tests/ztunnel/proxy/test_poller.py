"""Readiness of many sockets: who is told what, in which order, and what one handler can do to another."""

from __future__ import annotations

import asyncio
import os
import socket

from tests.support.tunnel import run, until
from ztunnel.proxy.loop import running
from ztunnel.proxy.poller import BROKEN, READ, Poller
from ztunnel.proxy.socket_end import SocketEnd, abort_socket


def pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        return one, listener.accept()[0]


class Told:
    """A poller, and what its handlers and crashes were."""

    def __init__(self) -> None:
        self.crashes: list[str] = []
        loop = running()
        loop.set_exception_handler(lambda _, context: self.crashes.append(context["message"]))
        self.poller = loop.poller
        self.events: list[str] = []

    def note(self, sock: socket.socket, name: str, late: str = "") -> None:
        """Read an octet and note it, and `late` at the end of the turn."""

        def handler(_: int) -> None:
            sock.recv(1)
            self.events.append(name)
            if late:
                self.poller.at_end(lambda: self.events.append(late))

        self.poller.watch(sock.fileno(), READ, handler)


def test_all_that_is_ready_is_handled_before_what_was_put_off_to_the_end() -> None:
    async def scenario() -> None:
        told = Told()
        ends = [pair() for _ in range(3)]
        for number, (near, far) in enumerate(ends):
            told.note(near, str(number), late="end")
            far.send(str(number).encode())
        await until(lambda: told.events.count("end") == 3)
        assert sorted(told.events[:3]) == ["0", "1", "2"]
        told.poller.at_end(lambda: told.events.append("outside a turn"))
        await until(lambda: told.events[-1] == "outside a turn")
        for near, far in ends:
            told.poller.forget(near.fileno())
            near.close()
            far.close()
        assert len(told.poller) == 0

    run(scenario)


def test_events_of_a_socket_that_was_left_in_the_same_turn_are_for_nobody() -> None:
    async def scenario() -> None:
        told = Told()
        (one, peer), (two, other) = pair(), pair()
        made: list[socket.socket] = []

        def replaces(mine: socket.socket, its: socket.socket) -> None:
            """Close the other one, and have its number at once for one that watches for the same."""
            told.events.append("first")
            number = its.fileno()
            told.poller.forget(number)
            its.close()
            with socket.socket() as fresh:
                os.dup2(fresh.fileno(), number)
            made.append(socket.socket(fileno=number))
            told.poller.watch(number, 0, lambda events: told.events.append("wrong" if events & READ else "right"))
            told.poller.leave(mine.fileno())

        told.poller.watch(one.fileno(), READ, lambda _: replaces(one, two))
        told.poller.watch(two.fileno(), READ, lambda _: replaces(two, one))
        peer.send(b"x")
        other.send(b"x")
        await until(lambda: "right" in told.events)  # a fresh socket is hung up
        assert told.events[0] == "first"
        assert "wrong" not in told.events
        for sock in (one, two, peer, other, *made):
            told.poller.forget(sock.fileno())
            sock.close()

    run(scenario)


def test_a_handler_that_raises_is_left_and_the_others_go_on() -> None:
    async def scenario() -> None:
        told = Told()
        (one, peer), (two, other) = pair(), pair()

        def bug(_: int) -> None:
            raise RuntimeError("bug")

        told.poller.watch(one.fileno(), READ, bug)
        told.note(two, "two")
        told.poller.at_end(lambda: bug(0))
        peer.send(b"x")
        other.send(b"x")
        await until(lambda: told.events == ["two"] and len(told.crashes) == 2)
        assert sorted(told.crashes) == ["end of turn", "event"]
        assert len(told.poller) == 1
        for sock in (one, two, peer, other):
            sock.close()

    run(scenario)


class End(SocketEnd):
    """Notes how it was lost."""

    def __init__(self, poller: Poller, sock: socket.socket) -> None:
        sock.setblocking(False)
        super().__init__(poller, sock, 1 << 16, lambda *_: None)
        self.lost: list[OSError | None] = []

    def on_readable(self) -> None:
        raise AssertionError("nobody should read")

    def on_lost(self, error: OSError | None) -> None:
        self.lost.append(error)


def test_of_sockets_that_nobody_reads_those_that_failed_are_ended_and_no_others() -> None:
    async def scenario() -> None:
        told = Told()
        ends, peers = [], []
        for _ in range(3):
            near, far = pair()
            end = End(told.poller, near)
            end.start_reading()
            end.stop_reading()
            ends.append(end)
            peers.append(far)
        # Ended by both sides, with something unread: hung up, but not failed.
        peers[1].sendall(b"unread")
        peers[1].close()
        ends[1].sock.shutdown(socket.SHUT_WR)
        abort_socket(peers[0])
        await until(lambda: bool(ends[0].lost) and len(told.poller) == 1)
        assert isinstance(ends[0].lost[0], ConnectionResetError)
        assert [len(end.lost) for end in ends] == [1, 0, 0]
        assert ends[1].sock.recv(10) == b"unread"
        for end in ends:
            end.close()
        assert len(told.poller) == 0
        peers[2].close()

    run(scenario)


def test_errors_are_told_unasked() -> None:
    async def scenario() -> None:
        told = Told()
        near, far = pair()
        found: list[int] = []

        def handler(events: int) -> None:
            found.append(events)
            told.poller.leave(near.fileno())

        told.poller.watch(near.fileno(), 0, handler)
        far.send(b"not asked for")
        await asyncio.sleep(0)
        assert not found
        abort_socket(far)
        await until(lambda: bool(found))
        assert found[0] & BROKEN
        near.close()

    run(scenario)
