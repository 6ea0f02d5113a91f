"""Tokens by TokenReview: asked once, remembered for a while, and what goes on when nobody can be asked."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import pytest

from ambient.ca.token import Caller
from ambient.control import token_cache
from ambient.control.token_review import FRESH_S, MOST_AT_ONCE, REFUSED_S, TokenReviews
from ambient.errors import Refused, Unavailable
from ambient.kube.api.failure import ApiInvalid, ApiUnavailable, Forbidden
from tests.support.token_review import NOW, Server, answer, token

CALLER = Caller("n1", "ambient-system", "ztunnel", "uid-1")
DOWN = ApiUnavailable("the Kubernetes API cannot be reached", "POST", "connection refused")
STALE_S = 3600.0


class World:
    def __init__(self) -> None:
        self.server = Server()
        self.now = 1_000.0
        self.reviews = TokenReviews(
            self.server,
            audience="istio-ca",
            stale_s=STALE_S,
            clock=lambda: self.now,
            wall=lambda: NOW + self.now - 1_000,
        )

    async def verify(self, given: str = "") -> Caller:
        return await self.reviews.verify(given or token())


def scenario(test: Callable[[World], Awaitable[None]]) -> Callable[[], None]:
    def run() -> None:
        asyncio.run(test(World()))  # type: ignore[arg-type]

    run.__name__ = test.__name__
    return run


@scenario
async def test_a_token_is_asked_about_once_in_a_while(world: World) -> None:
    assert await world.verify() == CALLER
    world.now += FRESH_S - 1
    assert await world.verify() == CALLER
    assert len(world.server.asked) == 1
    world.now += 2
    assert await world.verify() == CALLER
    assert len(world.server.asked) == 2


@scenario
async def test_many_calls_with_one_token_ask_once(world: World) -> None:
    assert await asyncio.gather(*(world.verify() for _ in range(50))) == [CALLER] * 50
    assert len(world.server.asked) == 1


@scenario
async def test_a_caller_that_gives_up_does_not_take_the_answer_from_others(world: World) -> None:
    first, second = asyncio.create_task(world.verify()), asyncio.create_task(world.verify())
    await asyncio.sleep(0)
    first.cancel()
    assert await second == CALLER
    assert len(world.server.asked) == 1


@scenario
async def test_where_the_server_does_not_tell_the_node_the_pod_is_looked_up(world: World) -> None:
    world.server.answers[token()] = answer(extra={"node-name": None})
    with pytest.raises(Refused, match="is gone"):
        await world.verify()
    world.now += REFUSED_S
    world.server.pods["ambient-system", "zt"] = {
        "metadata": {"uid": "uid-1"}, "spec": {"serviceAccountName": "ztunnel", "nodeName": "n4"}
    }  # fmt: skip
    assert (await world.verify()).node == "n4"
    assert world.server.looked_up == ["/api/v1/namespaces/ambient-system/pods/zt"] * 2


@scenario
async def test_a_refused_token_costs_one_question_in_a_few_seconds(world: World) -> None:
    world.server.answers[token()] = answer(authenticated=False)
    for _ in range(5):
        with pytest.raises(Refused, match="does not accept"):
            await world.verify()
    assert len(world.server.asked) == 1
    world.now += REFUSED_S
    world.server.answers.clear()
    assert await world.verify() == CALLER


@scenario
async def test_a_token_that_is_taken_back_is_refused_when_it_is_no_longer_fresh(world: World) -> None:
    await world.verify()
    world.server.answers[token()] = answer(authenticated=False)
    world.now += FRESH_S
    with pytest.raises(Refused):
        await world.verify()
    world.server.down = DOWN
    world.now += REFUSED_S
    with pytest.raises(Unavailable):
        await world.verify()


@scenario
async def test_without_an_api_server_known_tokens_go_on_for_the_stated_time_and_new_ones_are_not_refused(
    world: World,
) -> None:
    good = token(end=NOW + 10 * STALE_S)
    await world.verify(good)
    world.server.down = DOWN
    world.now += STALE_S - 1
    assert await world.verify(good) == CALLER
    with pytest.raises(Unavailable, match="cannot be asked"):
        await world.verify(token("new", end=NOW + 10 * STALE_S))
    world.now += 2
    with pytest.raises(Unavailable):
        await world.verify(good)


@scenario
async def test_no_memory_outlives_the_token_itself(world: World) -> None:
    short = token(end=NOW + 30)
    await world.verify(short)
    world.server.down = DOWN
    world.now += 31
    with pytest.raises(Unavailable):
        await world.verify(short)
    world.now += 60
    with pytest.raises(Refused, match="expired"):
        await world.verify(short)


@scenario
async def test_an_api_server_that_does_not_let_us_ask_says_nothing_about_the_token(world: World) -> None:
    for number, error in enumerate((Forbidden("refuses", "POST", "rbac"), ApiInvalid("does not accept", "POST", "x"))):
        world.server.answers[token(str(number))] = error
        with pytest.raises(Unavailable, match="does not let us ask"):
            await world.verify(token(str(number)))


@scenario
async def test_what_is_not_worth_asking_about_is_not_asked(world: World) -> None:
    for given in ("rubbish", token(audience=("other",)), token(end=NOW - 100)):
        with pytest.raises(Refused):
            await world.verify(given)
    assert world.server.asked == []


@scenario
async def test_a_flood_of_tokens_neither_floods_the_server_nor_fills_the_memory(world: World) -> None:
    at_once, most = 0, 0
    create = world.server.create

    async def counted(*given: object) -> dict[str, object]:
        nonlocal at_once, most
        at_once += 1
        most = max(most, at_once)
        await asyncio.sleep(0)
        at_once -= 1
        return await create(*given)  # type: ignore[arg-type]

    world.server.create = counted  # type: ignore[assignment, method-assign]
    tokens = [token(str(number)) for number in range(1000)]
    results = await asyncio.gather(*(world.verify(one) for one in tokens), return_exceptions=True)
    assert most == MOST_AT_ONCE
    assert sum(isinstance(one, Unavailable) for one in results) == 1000 - 512
    for number in range(token_cache.MOST_REFUSED + 100):
        world.server.answers[token(f"bad{number}")] = answer(authenticated=False)
        with pytest.raises(Refused):
            await world.verify(token(f"bad{number}"))
    cache = world.reviews._cache
    assert len(cache._refused) == token_cache.MOST_REFUSED


def test_nothing_that_is_logged_or_raised_has_the_token(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def outage() -> None:
        world = World()
        given = token("secret-mark")
        await world.verify(given)
        world.now += FRESH_S
        world.server.down = ApiUnavailable("the Kubernetes API cannot be reached", "POST", "connection refused")
        await world.verify(given)
        world.server.down = ApiInvalid("does not accept", "POST", f"bad value {given}")
        world.now += STALE_S * 2
        with pytest.raises((Unavailable, Refused)) as caught:
            await world.verify(token("x", end=NOW + 100_000))
        assert given not in str(caught.value)
        assert given not in caplog.text
        assert "goes on by what was known" in caplog.text

    asyncio.run(outage())
