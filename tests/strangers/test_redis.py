"""Counting in a real Redis: never more than the limit, however many count, and an error when it is away."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from ambient.errors import MeshError, ProtocolError, Unavailable
from ambient.ratelimit.asked import Asked, Counted
from ambient.ratelimit.counting import Counts
from tests.support.redis_server import RedisServer, redis_server

DAY = 86_400
PATIENT_S = 30.0


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path) as server:
        yield server


def limit(key: str, count: int = 5, period_s: int = DAY) -> Asked:
    return Asked(f"ambient:limit:{{r}}:{key}", count, period_s)


async def over(counts: Counts, *asked: Asked, hits: int = 1) -> list[bool]:
    return [one.over for one in await counts.count(asked, hits)]


def test_however_many_count_at_once_exactly_so_many_pass(redis: RedisServer) -> None:
    async def scenario() -> None:
        several = [Counts(redis.url, timeout_s=PATIENT_S, connections=8) for _ in range(3)]
        asked = [over(several[number % 3], limit("all", 50)) for number in range(150)]
        found = await asyncio.gather(*asked)
        assert found.count([False]) == 50
        for one in several:
            await one.close()

    asyncio.run(scenario())


def test_what_is_left_and_when_it_begins_anew(redis: RedisServer) -> None:
    async def scenario() -> list[Counted]:
        counts = Counts(redis.url, timeout_s=PATIENT_S)
        found = [(await counts.count([limit("a", 2)], 1))[0] for _ in range(3)]
        await counts.close()
        return found

    found = asyncio.run(scenario())
    assert [(one.left, one.over) for one in found] == [(1, False), (0, False), (0, True)]
    assert all(0 < one.reset_ms <= DAY * 1000 for one in found)


def test_a_window_ends_and_the_next_one_begins(redis: RedisServer) -> None:
    async def scenario() -> None:
        counts = Counts(redis.url, timeout_s=PATIENT_S)
        # In windows of a second: refused within one, and passed again in a later one.
        async with asyncio.timeout(60):
            while await over(counts, limit("second", 1, 1)) == [False]:
                pass
            while await over(counts, limit("second", 1, 1)) == [True]:
                pass
        await counts.close()

    asyncio.run(scenario())


def test_a_request_that_one_limit_refuses_is_counted_by_none(redis: RedisServer) -> None:
    async def scenario() -> None:
        counts = Counts(redis.url, timeout_s=PATIENT_S)
        mine, everybody = limit("mine", 1), limit("everybody", 3)
        assert await over(counts, mine, everybody) == [False, False]
        for _ in range(5):
            assert await over(counts, mine, everybody) == [True, False]
        assert [await over(counts, everybody) for _ in range(3)] == [[False], [False], [True]]
        await counts.close()

    asyncio.run(scenario())


def test_several_at_once_fit_whole_or_not_at_all(redis: RedisServer) -> None:
    async def scenario() -> None:
        counts = Counts(redis.url, timeout_s=PATIENT_S)
        assert await over(counts, limit("many", 5), hits=6) == [True]
        assert await over(counts, limit("many", 5), hits=5) == [False]
        await counts.close()

    asyncio.run(scenario())


def test_values_that_are_too_many_share_counts_and_no_key_is_added(redis: RedisServer) -> None:
    def of(value: str, count: int = 2) -> Asked:
        one = limit(value, count)
        return Asked(one.key, one.count, one.period_s, limit("values").key, limit("rest").key)

    async def scenario() -> None:
        counts = Counts(redis.url, timeout_s=PATIENT_S, most_values=2)
        assert await over(counts, of("never", 0)) == [True], "what is refused takes no place"
        for value in ("a", "b"):
            assert [await over(counts, of(value)) for _ in range(2)] == [[False], [False]]
        many = [await over(counts, of(str(number))) for number in range(5)]
        assert many == [[False], [False], [True], [True], [True]]
        assert await over(counts, of("a")) == [True]
        assert await over(counts, of("a", 3)) == [False], "who was there before has his own count"
        keys = {key.decode() for key in await counts._redis.keys()}
        assert keys == {limit(name).key for name in ("a", "b", "values", "rest")}
        assert all([0 < await counts._redis.pttl(key) <= DAY * 1000 for key in keys])
        await counts.close()

    asyncio.run(scenario())


def test_a_redis_that_is_killed_is_an_error_and_counts_when_it_is_back(redis: RedisServer) -> None:
    async def scenario() -> None:
        counts = Counts(redis.url, timeout_s=PATIENT_S)
        assert await over(counts, limit("a")) == [False]
        redis.kill()
        with pytest.raises(Unavailable):
            await over(counts, limit("a"))
        redis.start()
        # A connection that has ended is not noticed before it is used.
        for _ in range(3):
            try:
                assert await over(counts, limit("a")) == [False]
                break
            except MeshError:
                continue
        else:
            raise AssertionError("it does not count again")
        await counts.close()

    asyncio.run(scenario())


def test_a_count_that_somebody_else_wrote_over_is_an_error(redis: RedisServer) -> None:
    async def scenario() -> None:
        counts = Counts(redis.url, timeout_s=PATIENT_S)
        await counts._redis.set(limit("a").key, "garbage")
        with pytest.raises(ProtocolError):
            await over(counts, limit("a"))
        await counts._redis.delete(limit("a").key)
        await counts._redis.lpush(limit("a").key, "list")
        with pytest.raises(ProtocolError):
            await over(counts, limit("a"))
        await counts.close()

    asyncio.run(scenario())


def test_a_password_is_read_for_each_connection(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("wrong\n")

    async def scenario(url: str) -> None:
        counts = Counts(url, timeout_s=PATIENT_S, password=secret)
        with pytest.raises(MeshError):
            await over(counts, limit("a"))
        secret.write_text("hunter2\n")
        assert await over(counts, limit("a")) == [False]
        await counts.close()

    with redis_server(tmp_path, "--requirepass", "hunter2") as server:
        asyncio.run(scenario(server.url))
