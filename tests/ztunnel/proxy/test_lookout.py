"""Sockets that nobody reads: the dead are found, the living and the properly ended are left alone."""

from __future__ import annotations

import asyncio
import socket

from tests.support.tunnel import run
from ztunnel.proxy.lookout import Lookout
from ztunnel.proxy.socket_end import SocketEnd, abort_socket


class End(SocketEnd):
    """Notes how it was lost."""

    def __init__(self, sock: socket.socket, lookout: Lookout, *, breaks: bool = False) -> None:
        sock.setblocking(False)
        super().__init__(asyncio.get_running_loop(), sock, 1 << 16, lambda *_: None, lookout)
        self.lost: list[OSError | None] = []
        self._breaks = breaks

    def on_readable(self) -> None:
        raise AssertionError("nobody should read")

    def on_lost(self, error: OSError | None) -> None:
        self.lost.append(error)
        if self._breaks:
            raise RuntimeError("bug")


def pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        return one, listener.accept()[0]


def test_only_what_failed_is_ended_and_a_broken_handler_stops_nobody() -> None:
    async def scenario() -> None:
        crashes: list[str] = []
        lookout = Lookout(lambda where, _: crashes.append(where))
        ends, peers = [], []
        for number in range(4):
            near, far = pair()
            end = End(near, lookout, breaks=number == 0)
            end.start_reading()
            end.stop_reading()
            ends.append(end)
            peers.append(far)
        lookout.tick()
        assert not any(end.lost for end in ends)
        abort_socket(peers[0])
        abort_socket(peers[1])
        # Ended by both sides, with something unread: hung up, but not failed.
        peers[2].sendall(b"unread")
        peers[2].close()
        ends[2].sock.shutdown(socket.SHUT_WR)
        lookout.tick()
        assert [len(end.lost) for end in ends] == [1, 1, 0, 0]
        assert isinstance(ends[1].lost[0], ConnectionResetError)
        assert crashes == ["End"]
        assert ends[2].sock.recv(10) == b"unread"
        ends[3].start_reading()
        ends[3].stop_reading()
        lookout.tick()
        for end in ends:
            end.close()
        assert len(lookout) == 0
        peers[3].close()

    run(scenario)
