"""Key sets that are fetched: none until they were had, others when they change, and none again after a day."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from ambient.ca.token import Caller
from ambient.control.key_sets import LONGEST_S, MOST, KeySets
from ambient.control.waypoints import Waypoints
from ambient.errors import Unavailable
from ambient.waypoint.typed import CLUSTER_TYPE
from ambient.xds.messages import DeltaRequest
from tests.support.waypoint_records import TARGET, derived, scene, tokens
from tests.support.waypoint_views import KEYS

URL = "https://issuer.example.com/keys"
OTHER_KEYS = KEYS.replace('"kid":"a"', '"kid":"b"')
REFRESH_S = 1200.0


class World:
    """Servers of key sets, and a clock."""

    def __init__(self) -> None:
        self.now = 0.0
        self.answers: dict[str, str] = {}
        self.asked: list[str] = []
        self.sets = KeySets(self._fetch, refresh_s=REFRESH_S, clock=lambda: self.now, draw=lambda: 0.5)
        self.told: list[frozenset[str]] = []
        self.sets.changed = self.told.append

    async def _fetch(self, url: str) -> str:
        self.asked.append(url)
        if url not in self.answers:
            raise Unavailable("key set", url, "nobody is there")
        return self.answers[url]

    def after(self, seconds: float) -> None:
        self.now += seconds
        asyncio.run(self.sets.step())


def world(*urls: str) -> World:
    made = World()
    made.sets.want({"shop": urls or (URL,)})
    return made


def test_a_set_that_was_never_had_is_empty() -> None:
    one = world()
    assert (one.sets.keys(URL), one.sets.trouble(URL)) == ("", "not fetched yet")
    one.after(0)
    assert one.sets.keys(URL) == ""
    assert "nobody is there" in one.sets.trouble(URL)


def test_it_is_asked_for_again_soon_until_it_is_had_and_then_now_and_then() -> None:
    one = world()
    for seconds in (0, 2, 4, 8):
        one.after(seconds)
    assert len(one.asked) == 4
    one.answers[URL] = KEYS
    one.after(60)
    assert (one.sets.keys(URL), one.sets.trouble(URL)) == (KEYS, "")
    one.after(REFRESH_S / 2)
    assert len(one.asked) == 5
    one.after(REFRESH_S / 2)
    assert len(one.asked) == 6


def test_other_keys_are_told_and_equal_ones_are_no_news() -> None:
    one = world()
    one.answers[URL] = KEYS
    one.after(0)
    one.after(REFRESH_S)
    assert one.told == [{URL}]
    one.answers[URL] = OTHER_KEYS
    one.after(REFRESH_S)
    assert one.sets.keys(URL) == OTHER_KEYS
    assert one.told == [{URL}] * 2


def test_keys_that_cannot_be_had_any_more_go_on_for_a_day_and_no_longer() -> None:
    one = world()
    one.answers[URL] = KEYS
    one.after(0)
    one.answers.clear()
    one.after(REFRESH_S)
    assert one.sets.keys(URL) == KEYS
    assert "nobody is there" in one.sets.trouble(URL)
    one.after(LONGEST_S)
    assert one.sets.keys(URL) == ""
    assert one.told == [{URL}] * 3


def test_what_nobody_wants_any_more_is_not_kept() -> None:
    one = world()
    one.answers[URL] = KEYS
    one.after(0)
    one.sets.want({})
    one.after(REFRESH_S)
    assert (one.sets.keys(URL), len(one.asked)) == ("", 1)


def test_there_are_so_many_and_no_more() -> None:
    urls = [f"https://i.example.com/{number:04}" for number in range(MOST + 1)]
    one = world(*urls)
    one.after(0)
    assert len(one.asked) == MOST
    assert "are not fetched" in one.sets.trouble(urls[-1])


def many(host: str, number: int) -> list[str]:
    return [f"https://{host}.example.com/{one:04}" for one in range(number)]


def test_one_namespace_that_wants_very_many_takes_none_from_others() -> None:
    one = World()
    one.sets.want({"greedy": many("a", 2 * MOST), "shop": many("z", 3), "late": [URL]})
    one.after(0)
    assert len(one.asked) == MOST
    assert {*many("z", 3), URL} < set(one.asked)
    assert not any(one.sets.trouble(url).startswith("more than") for url in (*many("z", 3), URL))


def test_what_is_had_is_not_pushed_out_by_what_is_new() -> None:
    one = World()
    one.answers = dict.fromkeys(many("z", MOST), KEYS)
    one.sets.want({"shop": many("z", MOST)})
    one.after(0)
    one.sets.want({"shop": [*many("a", MOST), *many("z", MOST)]})
    assert all(one.sets.keys(url) for url in many("z", MOST))
    # Nor where each namespace wants one and there are too many namespaces.
    by_namespace = {f"z{number:04}": [url] for number, url in enumerate(many("z", MOST))}
    by_namespace |= {f"a{number:04}": [url] for number, url in enumerate(many("a", MOST))}
    one.sets.want(by_namespace)
    assert all(one.sets.keys(url) for url in many("z", MOST))


def test_it_runs_by_itself_and_begins_when_something_is_wanted() -> None:
    async def scenario() -> None:
        one = World()
        one.answers[URL] = KEYS
        had = asyncio.Event()
        one.sets.changed = lambda urls: had.set()
        running = asyncio.create_task(one.sets.run())
        await asyncio.sleep(0)
        one.sets.want({"shop": [URL]})
        async with asyncio.timeout(30):
            await had.wait()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        assert one.sets.keys(URL) == KEYS

    asyncio.run(scenario())


# --- at a waypoint

AUTHENTICATION = "RequestAuthentication/shop/issuer"


def behind(one: World) -> tuple[Waypoints, Callable[[], Any]]:
    made = Waypoints(("cluster.local",), "istio-system", "cluster.local", one.sets)
    found = scene(tokens("issuer", TARGET, jwks=None, jwksUri=URL))
    made.update(found, derived(found))
    stream = made.open(Caller("n1", "shop", "waypoint", "u"), "waypoint")
    stream.receive(DeltaRequest(type_url=CLUSTER_TYPE))

    def keys() -> str:
        served = made._served["Gateway/shop/waypoint"].made
        return str([content for (_, name), (content, _) in served.items() if name.startswith("service|80")])

    return made, keys


def test_a_key_set_is_wanted_by_the_namespace_of_what_names_it() -> None:
    one = World()
    made = Waypoints(("cluster.local",), "istio-system", "cluster.local", one.sets)
    greedy = tokens("greedy", TARGET, namespace="a", jwks=None, jwksUri=URL)
    (rule,) = greedy["spec"]["jwtRules"]
    rules = [{**rule, "jwksUri": url} for url in many("a", MOST)]
    lots = [
        {
            **greedy,
            "metadata": {"name": f"greedy-{at}", "namespace": "a"},
            "spec": {**greedy["spec"], "jwtRules": rules[at : at + 50]},
        }
        for at in range(0, MOST, 50)
    ]
    found = scene(*lots, tokens("issuer", TARGET, jwks=None, jwksUri=URL))
    made.update(found, derived(found))
    assert one.sets.trouble(URL) == "not fetched yet"


def test_a_waypoint_is_told_of_other_keys_and_the_authentication_says_how_they_are() -> None:
    one = World()
    made, listener = behind(one)
    said: list[str] = []
    made.say = said.append
    one.sets.changed = lambda urls: made.renew(urls) and None

    def condition() -> tuple[str, str]:
        (found,) = made.conditions(AUTHENTICATION)
        return found.status, found.message

    one.after(0)
    assert condition()[0] == "False"
    assert "spec.jwtRules[0].jwksUri" in condition()[1]
    assert "tokens of https://issuer.example.com are refused" in condition()[1]
    assert "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4" not in listener()
    one.answers[URL] = KEYS
    one.after(60)
    assert condition()[0] == "True"
    assert "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4" in listener()
    assert AUTHENTICATION in said
    one.answers.clear()
    one.after(REFRESH_S)
    assert "the keys from before are used" in condition()[1]
    assert "MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4" in listener()
