"""The base of everything that moves bytes: backlog, ends, aborts, and crashes that stay small."""

from __future__ import annotations

import asyncio
import socket

from tests.support.tunnel import poller, run, until
from ztunnel.proxy.socket_end import SocketEnd


class End(SocketEnd):
    """Reads into a list and notes what happens."""

    def __init__(self, sock: socket.socket, high: int = 1 << 16) -> None:
        self.crashes: list[str] = []
        sock.setblocking(False)
        super().__init__(poller(), sock, high, lambda where, _: self.crashes.append(where))
        self.read: list[bytes] = []
        self.events: list[str] = []

    def on_readable(self) -> None:
        data = self.sock.recv(65_536)
        if data == b"crash":
            raise RuntimeError("bug")
        self.read.append(data)
        if not data:
            self.stop_reading()

    def on_lost(self, error: OSError | None) -> None:
        self.events.append(f"lost {type(error).__name__}")

    def on_relieved(self) -> None:
        self.events.append("relieved")

    def on_written_end(self) -> None:
        self.events.append("end")


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        one = socket.create_connection(listener.getsockname())
        other, _ = listener.accept()
    return one, other


def test_what_the_kernel_does_not_take_waits_and_keeps_its_order() -> None:
    async def scenario() -> None:
        near, far = tcp_pair()
        end = End(near)
        view = memoryview(bytearray(100_000))
        for number in range(200):
            view[:] = bytes([number]) * 100_000
            end.push(view)
        end.end_writing()
        assert end.congested
        assert not end.events
        far.setblocking(False)
        loop, received = asyncio.get_running_loop(), bytearray()
        while data := await loop.sock_recv(far, 1 << 20):
            received += data
        assert received == b"".join(bytes([number]) * 100_000 for number in range(200))
        assert end.events == ["end", "relieved"]
        assert end.backlog_size == 0
        end.close()
        far.close()

    run(scenario)


def test_a_write_to_a_peer_that_is_gone_is_told_once() -> None:
    async def scenario() -> None:
        near, far = tcp_pair()
        end = End(near)
        far.close()
        for _ in range(3):
            end.push(b"x")
            await asyncio.sleep(0)
        await until(lambda: (end.push(b"x"), end.closed)[1])
        assert len(end.events) == 1
        end.close()
        end.abort()
        assert len(end.events) == 1

    run(scenario)


def test_an_abort_is_a_reset_and_a_close_is_an_end() -> None:
    async def scenario() -> None:
        near, far = tcp_pair()
        End(near).close()
        assert far.recv(10) == b""
        far.close()
        near, far = tcp_pair()
        End(near).abort()
        try:
            far.recv(10)
            raise AssertionError("no reset")
        except ConnectionResetError:
            far.close()

    run(scenario)


def test_a_crash_while_reading_aborts_this_socket() -> None:
    async def scenario() -> None:
        near, far = tcp_pair()
        end = End(near)
        end.start_reading()
        far.send(b"fine")
        await until(lambda: end.read == [b"fine"])
        far.send(b"crash")
        await until(lambda: end.closed)
        assert end.crashes == ["End"]
        assert end.events == ["lost NoneType"]
        far.close()

    run(scenario)


def test_who_dies_with_a_guarded_connection_resets_it_and_who_closes_it_ends_it() -> None:
    async def scenario() -> None:
        for guarded, dies, seen in ((True, True, "reset"), (True, False, "end"), (False, True, "end")):
            near, far = tcp_pair()
            end = End(near)
            if guarded:
                end.guard()
            end.push(b"some of it")
            assert far.recv(100) == b"some of it"
            if dies:
                end.closed = True
                socket.close(near.detach())  # what the kernel does with what a dead process had open
            else:
                end.close()
            try:
                found = "end" if far.recv(100) == b"" else "more"
            except ConnectionResetError:
                found = "reset"
            assert found == seen, (guarded, dies)
            far.close()

    run(scenario)
