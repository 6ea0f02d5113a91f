"""Shares of connections and turns: whoever takes most is the one who gives way."""

from __future__ import annotations

import asyncio

from ambient.control.fair import Guests, Turns


def test_one_address_has_its_share_and_the_one_beyond_is_turned_away() -> None:
    guests: Guests[str] = Guests(10, 2)
    assert [guests.arrive("a", f"a{number}") for number in range(3)] == [None, None, "a2"]
    guests.leave("a", "a2")
    guests.leave("a", "a0")
    assert guests.arrive("a", "a3") is None


def test_when_there_is_no_room_the_oldest_of_the_heaviest_gives_way() -> None:
    guests: Guests[str] = Guests(4, 4)
    assert not any(guests.arrive("a", f"a{number}") for number in range(3))
    assert guests.arrive("b", "b0") is None
    assert guests.arrive("c", "c0") == "a0"
    guests.leave("a", "a0")
    assert guests.arrive("b", "b1") == "b1", "who holds as much as the heaviest takes nothing from him"


def test_who_left_before_may_leave_again() -> None:
    guests: Guests[str] = Guests(1, 1)
    guests.arrive("a", "a0")
    guests.leave("a", "a0")
    guests.leave("a", "a0")
    assert guests.arrive("b", "b0") is None


def test_an_address_that_is_at_work_as_often_as_it_may_be_leaves_turns_for_others() -> None:
    async def run() -> None:
        turns, order, go_on = Turns(3, 2), list[str](), asyncio.Event()

        async def work(address: str) -> None:
            async with turns.of(address):
                order.append(address)
                await go_on.wait()

        tasks = [asyncio.create_task(work("a")) for _ in range(5)]
        await asyncio.sleep(0)
        tasks.append(asyncio.create_task(work("b")))
        for _ in range(10):
            await asyncio.sleep(0)
        assert sorted(order) == ["a", "a", "b"]
        go_on.set()
        await asyncio.gather(*tasks)
        assert len(order) == 6
        assert not turns._own

    asyncio.run(run())
