"""Connecting without waiting."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterable, Iterator

from ambient.model.address import Endpoint, parse_endpoint
from tests.support.tunnel import application, echo, poller, run, until
from tests.support.tunnel_sockets import deaf
from ztunnel.proxy.dial import AGAIN_S, ATTEMPTS, Dial, Dials


def attempt(target: Endpoint, timeout: float = 5.0) -> tuple[socket.socket, list[OSError | None], Dial]:
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    outcome: list[OSError | None] = []
    return sock, outcome, Dial(poller(), sock, target, timeout, outcome.append)


def test_a_connection_on_this_host_is_up_and_a_refusal_is_told() -> None:
    async def scenario() -> None:
        async with application("127.0.0.1", echo) as port:
            sock, outcome, _ = attempt(parse_endpoint(f"127.0.0.1:{port}"))
            await until(lambda: outcome == [None])
            sock.close()
        refused, outcome, _ = attempt(parse_endpoint("127.0.0.1:1"))
        await until(lambda: isinstance(outcome[0] if outcome else None, ConnectionRefusedError))
        refused.close()

    run(scenario)


def test_a_silent_peer_times_out_and_a_cancelled_attempt_is_silent() -> None:
    async def scenario() -> None:
        # A listener whose queue is full answers no further SYN.
        with socket.socket() as full, socket.socket() as first, socket.socket() as second:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            target = parse_endpoint(f"127.0.0.1:{full.getsockname()[1]}")
            first.connect(full.getsockname())
            second.setblocking(False)
            second.connect_ex(full.getsockname())
            late, late_outcome, _ = attempt(target, 0.05)
            gone, gone_outcome, dial = attempt(target, 0.05)
            dial.cancel()
            await until(lambda: isinstance(late_outcome[0] if late_outcome else None, TimeoutError))
            assert not gone_outcome
            late.close()
            gone.close()

    run(scenario)


def plain() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)


@contextlib.contextmanager
def unusable(target: Endpoint) -> Iterator[socket.socket]:
    """A socket with which the target cannot be dialled: another one from its address is connected there."""
    with plain() as taken:
        made = plain()
        for sock in (taken, made):
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", 0))
        made.bind(taken.getsockname())
        taken.setblocking(True)
        taken.connect((str(target.ip), target.port))
        yield made


class Dialled:
    """Several attempts at one target: the first so many of them are deaf."""

    def __init__(
        self, target: Endpoint, unheard: int, timeout: float = 10.0, then: Iterable[socket.socket] = ()
    ) -> None:
        self.made: list[socket.socket] = []
        self.outcome: list[socket.socket | OSError] = []
        self._unheard = unheard
        self._then = iter(then)
        self.dials = Dials(poller(), self._make, target, timeout, self.outcome.append)

    def _make(self) -> socket.socket:
        if len(self.made) < self._unheard:
            self.made.append(deaf())
        else:
            self.made.append(next(self._then, None) or plain())
        return self.made[-1]

    @property
    def open(self) -> list[socket.socket]:
        return [sock for sock in self.made if sock.fileno() >= 0]


def test_an_attempt_that_nobody_hears_is_followed_by_others_and_the_first_that_is_up_is_kept() -> None:
    async def scenario() -> None:
        async with application("127.0.0.1", echo) as port:
            here = Dialled(parse_endpoint(f"127.0.0.1:{port}"), unheard=2)
            await until(lambda: bool(here.outcome))
            assert here.outcome == [here.made[2]]
            assert here.open == [here.made[2]]
            here.made[2].close()

    run(scenario)


def test_attempts_that_all_go_unheard_are_few_and_end_with_the_deadline() -> None:
    async def scenario() -> None:
        async with application("127.0.0.1", echo) as port:
            here = Dialled(parse_endpoint(f"127.0.0.1:{port}"), unheard=99, timeout=2 * ATTEMPTS * AGAIN_S)
            await until(lambda: bool(here.outcome))
            assert isinstance(here.outcome[0], TimeoutError)
            assert len(here.outcome) == 1
            assert 1 < len(here.made) <= ATTEMPTS
            assert not here.open

    run(scenario)


def test_an_attempt_that_fails_here_does_not_end_those_that_are_under_way() -> None:
    async def scenario() -> None:
        async with application("127.0.0.1", echo) as port:
            target = parse_endpoint(f"127.0.0.1:{port}")
            with unusable(target) as broken:
                here = Dialled(target, unheard=1, then=[broken])
                await until(lambda: bool(here.outcome))
                assert here.outcome == [here.made[2]]
                assert here.made[1] is broken
                assert here.open == [here.made[2]]
                here.made[2].close()

    run(scenario)


def test_when_no_attempt_is_left_the_error_is_told() -> None:
    async def scenario() -> None:
        async with application("127.0.0.1", echo) as port:
            target = parse_endpoint(f"127.0.0.1:{port}")
            with unusable(target) as broken:
                here = Dialled(target, unheard=0, then=[broken])
                assert [type(one) for one in here.outcome] == [OSError]
                assert not here.open

    run(scenario)


def test_a_refusal_is_believed_and_ends_every_attempt() -> None:
    async def scenario() -> None:
        here = Dialled(parse_endpoint("127.0.0.1:1"), unheard=1)
        await until(lambda: bool(here.outcome))
        assert isinstance(here.outcome[0], ConnectionRefusedError)
        assert not here.open

    run(scenario)


def test_cancelled_attempts_are_silent_and_closed() -> None:
    async def scenario() -> None:
        async with application("127.0.0.1", echo) as port:
            here = Dialled(parse_endpoint(f"127.0.0.1:{port}"), unheard=99)
            await until(lambda: len(here.made) > 1)
            here.dials.cancel()
            assert not here.open
            assert not here.outcome

    run(scenario)
