"""The channel over real socket pairs: order, fragments, descriptors, back-pressure, ends."""

from __future__ import annotations

import array
import asyncio
import os
import random
import socket
import struct
from collections.abc import Callable, Coroutine

import pytest

from ambient.errors import InvalidInput
from ztunnel.ipc import channel as channel_module
from ztunnel.ipc.channel import Channel, encode
from ztunnel.ipc.messages import LogLevel, PodDown, PodGone
from ztunnel.proxy.loop import Loop

Scenario = Callable[[], Coroutine[None, None, None]]


class End:
    """One end with everything it heard."""

    def __init__(self, sock: socket.socket) -> None:
        self.heard: list[object] = []
        self.fds: list[list[int]] = []
        self.closed = 0
        self._changed = asyncio.Event()
        self.channel = Channel(asyncio.get_running_loop(), sock, self._message, self._end)

    def _message(self, message: object, fds: list[int]) -> None:
        self.heard.append(message)
        self.fds.append(fds)
        self._changed.set()

    def _end(self) -> None:
        self.closed += 1
        self._changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                self._changed.clear()
                await self._changed.wait()


@pytest.fixture(params=["director", "worker"])
def run(request: pytest.FixtureRequest) -> Callable[[Scenario], None]:
    factory = asyncio.new_event_loop if request.param == "director" else Loop

    def go(scenario: Scenario) -> None:
        with asyncio.Runner(loop_factory=factory) as runner:
            runner.run(scenario())

    return go


Run = Callable[[Scenario], None]


def pair() -> tuple[socket.socket, socket.socket]:
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)


def test_messages_arrive_in_order_in_both_directions(run: Run) -> None:
    async def scenario() -> None:
        left, right = (End(sock) for sock in pair())
        sent = [PodGone(uid=str(i)) for i in range(2000)]
        for message in sent:
            left.channel.send(message)
            right.channel.send(message)
        await left.until(lambda: len(left.heard) == 2000)
        await right.until(lambda: len(right.heard) == 2000)
        assert left.heard == sent == right.heard
        left.channel.close()
        await right.until(lambda: right.closed == 1)
        assert left.closed == 0

    run(scenario)


def test_descriptors_stay_with_their_message_even_when_the_socket_is_full(run: Run) -> None:
    async def scenario() -> None:
        one, two = pair()
        left, right = End(one), End(two)
        files = [os.memfd_create(f"f{i}") for i in range(40)]
        for number, fd in enumerate(files):
            os.write(fd, str(number).encode())
            left.channel.send(PodDown(uid="x" * random.Random(number).randrange(200_000)))
            left.channel.send(PodGone(uid=str(number)), [fd, fd])
            os.close(fd)
        await right.until(lambda: len(right.heard) == 80)
        for number in range(40):
            assert right.fds[2 * number] == []
            assert right.heard[2 * number + 1] == PodGone(uid=str(number))
            for fd in right.fds[2 * number + 1]:
                assert os.pread(fd, 10, 0) == str(number).encode()
                assert not os.get_inheritable(fd)
                os.close(fd)
        left.channel.close()
        right.channel.close()

    run(scenario)


@pytest.mark.parametrize("step", [1, 3, 7, 4096])
def test_a_frame_may_arrive_in_fragments(run: Run, step: int) -> None:
    async def scenario() -> None:
        raw, other = pair()
        end = End(other)
        messages = [LogLevel(level="l" * n) for n in (0, 1, 300)]
        stream = b"".join(struct.pack("!IH", len(encode(m)), 0) + encode(m) for m in messages)
        for start in range(0, len(stream), step):
            raw.send(stream[start : start + step])
            await asyncio.sleep(0)
        await end.until(lambda: len(end.heard) == 3)
        assert end.heard == messages
        raw.close()
        await end.until(lambda: end.closed == 1)
        assert end.channel.failure == ""

    run(scenario)


def test_a_peer_that_dies_inside_a_frame_is_reported_as_broken(run: Run) -> None:
    async def scenario() -> None:
        raw, other = pair()
        end = End(other)
        raw.send(struct.pack("!IH", 10, 0) + b"123")
        raw.close()
        await end.until(lambda: end.closed == 1)
        assert end.channel.failure == "ended inside a frame"

    run(scenario)


@pytest.mark.parametrize(
    "bytes_",
    [struct.pack("!IH", 0xFFFFFFFF, 0), struct.pack("!IH", 1, 0) + b"\xc1", struct.pack("!IH", 1, 1) + b"\xc0"],
    ids=["longer than the limit", "not a message", "descriptor missing"],
)
def test_a_broken_frame_ends_the_channel_once(run: Run, bytes_: bytes) -> None:
    async def scenario() -> None:
        raw, other = pair()
        end = End(other)
        raw.send(bytes_)
        await end.until(lambda: end.closed == 1)
        assert end.heard == []
        assert end.channel.closed
        end.channel.send(PodGone(uid="ignored"))
        raw.close()

    run(scenario)


def test_descriptors_nobody_took_are_closed(run: Run) -> None:
    async def scenario() -> None:
        raw, other = pair()
        end = End(other)
        read, write = os.pipe()
        header = struct.pack("!IH", 100, 1) + b"unfinished"
        raw.sendmsg([header], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [write]))])
        os.close(write)
        raw.close()
        await end.until(lambda: end.closed == 1)
        assert os.read(read, 1) == b""
        os.close(read)

    run(scenario)


def test_a_handler_that_raises_does_not_stop_the_next_message() -> None:
    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        reports: list[object] = []
        loop.set_exception_handler(lambda _loop, context: reports.append(context["exception"]))
        heard: list[object] = []
        done = asyncio.Event()

        def handler(message: object, _fds: list[int]) -> None:
            heard.append(message)
            if len(heard) == 1:
                raise LookupError("first")
            done.set()

        one, two = pair()
        sender, receiver = End(one), Channel(loop, two, handler, lambda: None)
        sender.channel.send(PodGone(uid="1"))
        sender.channel.send(PodGone(uid="2"))
        async with asyncio.timeout(5):
            await done.wait()
        assert len(heard) == 2
        assert isinstance(reports[0], LookupError)
        receiver.close()
        sender.channel.close()

    asyncio.run(scenario())


def test_a_peer_that_never_reads_is_given_up_and_memory_stays_bounded(run: Run) -> None:
    async def scenario() -> None:
        raw, other = pair()
        end = End(other)
        big = PodGone(uid="x" * (32 << 20))
        for _ in range(8):
            end.channel.send(big)
            assert end.channel.backlog <= channel_module.MAX_BACKLOG
        await end.until(lambda: end.closed == 1)
        assert end.channel.failure == "the peer does not read"
        assert end.channel.backlog == 0
        raw.close()

    run(scenario)


def test_what_cannot_travel_is_refused_and_nothing_is_sent(run: Run) -> None:
    async def scenario() -> None:
        left, right = (End(sock) for sock in pair())
        with pytest.raises(InvalidInput):
            left.channel.send(object())
        with pytest.raises(InvalidInput):
            left.channel.send(PodGone(uid="u"), [0] * 65)
        left.channel.send(PodGone(uid="after"))
        await right.until(lambda: bool(right.heard))
        assert right.heard == [PodGone(uid="after")]
        left.channel.close()
        right.channel.close()

    run(scenario)


def test_writing_to_a_dead_peer_reports_the_end_later_and_not_inside_send(run: Run) -> None:
    async def scenario() -> None:
        raw, other = pair()
        end = End(other)
        raw.close()
        end.channel.send(PodGone(uid="u"))
        assert end.closed == 0
        await end.until(lambda: end.closed == 1)

    run(scenario)
