"""A loop that waits in the poller: what is the loop's own comes in time, whatever the hot sockets do."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from tests.support.tunnel import run, until
from ztunnel.proxy import loop as loop_module
from ztunnel.proxy.loop import Loop, running
from ztunnel.proxy.poller import READ


@contextmanager
def hot(handler: Callable[[], None], *, once: bool) -> Iterator[None]:
    """`handler` is called for a socket that has something to read: once, or again and again for as long as it lasts."""
    near, far = socket.socketpair()
    poller = running().poller

    def ready(_: int) -> None:
        if once:
            near.recv(1)
        handler()

    poller.watch(near.fileno(), READ, ready)
    far.send(b"x")
    try:
        yield
    finally:
        poller.forget(near.fileno())
        near.close()
        far.close()


def by_call(loop: Loop, done: Callable[[], None]) -> None:
    loop.call_soon(done)


def by_timer(loop: Loop, done: Callable[[], None]) -> None:
    loop.call_later(0.01, done)


def by_future(loop: Loop, done: Callable[[], None]) -> None:
    waited = loop.create_future()
    waited.add_done_callback(lambda _: done())
    waited.set_result(None)


def by_thread(loop: Loop, done: Callable[[], None]) -> None:
    threading.Thread(target=loop.call_soon_threadsafe, args=(done,)).start()


def by_signal(loop: Loop, done: Callable[[], None]) -> None:
    def told() -> None:
        loop.remove_signal_handler(signal.SIGUSR1)
        done()

    loop.add_signal_handler(signal.SIGUSR1, told)
    os.kill(os.getpid(), signal.SIGUSR1)


def by_descriptor(loop: Loop, done: Callable[[], None]) -> None:
    near, far = socket.socketpair()

    def readable() -> None:
        loop.remove_reader(near)
        near.close()
        far.close()
        done()

    loop.add_reader(near, readable)
    far.send(b"x")


WAYS = (by_call, by_timer, by_future, by_thread, by_signal, by_descriptor)


@pytest.mark.parametrize("debug", [False, True], ids=["", "debug"])
@pytest.mark.parametrize("once", [True, False], ids=["quiet", "busy"])
@pytest.mark.parametrize("way", WAYS)
def test_what_a_handler_asks_of_the_loop_is_done_in_time(
    way: Callable[[Loop, Callable[[], None]], None], once: bool, debug: bool
) -> None:
    """In time: before the loop has anything else to do, which is the time limit of the test; and while the handler is
    called without end."""

    async def scenario() -> None:
        loop, done, asked = running(), asyncio.Event(), list[bool]()
        if debug:
            loop.set_debug(True)
            for _ in range(3):  # which is done by a wake-up of its own
                await asyncio.sleep(0)

        def handler() -> None:
            if not asked:
                asked.append(True)
                way(loop, done.set)

        with hot(handler, once=once):
            await done.wait()

    run(scenario)


def test_a_timer_that_was_set_before_is_not_kept_waiting_by_sockets_that_always_have_something() -> None:
    async def scenario() -> None:
        done, turns = asyncio.Event(), list[int]()
        running().call_later(0.02, done.set)
        with hot(lambda: turns.append(1), once=False):
            await done.wait()
        assert len(turns) > 1

    run(scenario)


def test_while_nothing_is_the_loops_own_it_is_not_gone_round(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        loop, done, rounds, turns = running(), asyncio.Event(), list[float | None](), list[int]()

        def select(_: object, timeout: float | None) -> list[object]:
            rounds.append(timeout)
            loop.poller.wait(timeout)
            return []

        monkeypatch.setattr(loop_module._Others, "select", select)

        def at_end() -> None:
            turns.append(1)
            if len(turns) == 1000:
                done.set()

        with hot(lambda: loop.poller.at_end(at_end), once=False):
            await done.wait()
        assert len(rounds) < 10

    run(scenario)


def test_sockets_are_not_kept_waiting_by_calls_without_end() -> None:
    async def scenario() -> None:
        loop, done = running(), asyncio.Event()

        def again() -> None:
            if not done.is_set():
                loop.call_soon(again)

        again()
        with hot(done.set, once=True):
            await done.wait()

    run(scenario)


@pytest.mark.parametrize("order", [("loop", "hot"), ("hot", "loop")])
def test_what_was_ready_first_is_heard_first(order: tuple[str, str]) -> None:
    async def scenario() -> None:
        loop, heard = running(), list[str]()
        ends = {name: socket.socketpair() for name in order}

        def ready(name: str) -> None:
            ends[name][0].recv(1)
            heard.append(name)
            if name == "hot":
                loop.poller.at_end(lambda: heard.append("sent"))

        loop.add_reader(ends["loop"][0], ready, "loop")
        loop.poller.watch(ends["hot"][0].fileno(), READ, lambda _: ready("hot"))
        for name in order:
            ends[name][1].send(b"x")
        await until(lambda: len(heard) == 3)
        assert heard == [said for name in order for said in ([name, "sent"] if name == "hot" else [name])]
        loop.remove_reader(ends["loop"][0])
        loop.poller.forget(ends["hot"][0].fileno())
        for near, far in ends.values():
            near.close()
            far.close()

    run(scenario)


def test_an_event_that_was_fetched_is_for_nobody_when_the_loop_has_closed_its_socket_meanwhile() -> None:
    async def scenario() -> None:
        loop, heard = running(), list[str]()
        (cold, other), (near, far), (fresh, last) = (socket.socketpair() for _ in range(3))
        number = near.fileno()

        def replace() -> None:
            """Give the number to one that has nothing to read."""
            heard.append("replaced")
            loop.remove_reader(cold)
            loop.poller.forget(number)
            os.dup2(fresh.fileno(), number)
            loop.poller.watch(number, READ, lambda _: (heard.append("new"), loop.poller.leave(number)))

        loop.add_reader(cold, replace)
        loop.poller.watch(number, READ, lambda _: heard.append("old"))
        other.send(b"x")
        far.send(b"x")
        await until(lambda: bool(heard))
        await asyncio.sleep(0)
        assert heard == ["replaced"]
        last.send(b"x")
        await until(lambda: heard == ["replaced", "new"])
        for sock in (cold, other, near, far, fresh, last):
            sock.close()

    run(scenario)


def test_what_is_put_off_outside_a_turn_is_done_before_the_loop_waits() -> None:
    async def scenario() -> None:
        done = asyncio.Event()
        running().poller.at_end(done.set)
        await done.wait()

    run(scenario)


def test_stopped_by_a_handler_it_stops() -> None:
    loop = Loop()

    async def begin() -> None:
        scope = hot(loop.stop, once=True)
        scope.__enter__()
        loop.call_later(60, scope.__exit__, None, None, None)

    loop.create_task(begin())
    loop.run_forever()
    assert len(loop.poller) == 1
    loop.close()


def test_what_is_no_error_goes_through_and_nothing_is_lost_by_it() -> None:
    """As a signal whose handler raises: the loop ends, and may be run again."""

    async def scenario() -> list[str]:
        found: list[str] = []

        def handler() -> None:
            running().poller.at_end(lambda: found.append("end of turn"))
            raise KeyboardInterrupt

        loop = running()
        near, far = socket.socketpair()
        loop.poller.watch(near.fileno(), READ, lambda _: (near.recv(1), handler()))
        far.send(b"x")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            found.append("cancelled")
        far.send(b"x")
        loop.poller.watch(near.fileno(), READ, lambda _: (near.recv(1), found.append("event")))
        await until(lambda: "event" in found)
        loop.poller.forget(near.fileno())
        near.close()
        far.close()
        return found

    loop = Loop()
    task = loop.create_task(scenario())
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(task)
    task.cancel()
    assert sorted(loop.run_until_complete(task)) == ["cancelled", "end of turn", "event"]
    loop.close()


def test_closed_it_minds_nobody_who_leaves_afterwards() -> None:
    loop = Loop()
    (one, two), (near, far) = socket.socketpair(), socket.socketpair()
    loop.poller.watch(one.fileno(), READ, lambda _: None)
    loop.poller.watch(two.fileno(), READ, lambda _: None)
    loop.add_reader(near, lambda: None)
    loop.close()
    loop.close()
    assert len(loop.poller) == 0
    loop.poller.leave(one.fileno())
    loop.poller.forget(two.fileno())
    for sock in (one, two, near, far):
        sock.close()


def test_a_descriptor_of_the_loop_that_was_closed_too_early_harms_nobody_who_has_its_number() -> None:
    async def scenario() -> None:
        loop, heard = running(), list[int]()
        near, far = socket.socketpair()
        number = near.fileno()
        loop.add_reader(number, lambda: heard.append(-1))
        near.close()
        far.close()
        again, other = socket.socketpair()
        assert again.fileno() == number

        def ready(events: int) -> None:
            heard.append(events)
            again.recv(1)

        loop.poller.watch(number, READ, ready)
        loop.remove_reader(number)
        other.send(b"x")
        await until(lambda: bool(heard))
        assert heard == [READ]
        loop.poller.forget(number)
        again.close()
        other.close()

    run(scenario)
