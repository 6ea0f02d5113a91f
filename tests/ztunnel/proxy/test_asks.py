"""Questions to the director: asked once, answered to all, forgotten on demand."""

from __future__ import annotations

from ztunnel.proxy.asks import AskCache


class Asked:
    def __init__(self, *, up: bool = True) -> None:
        self.keys: list[str] = []
        self.got: list[int | None] = []
        self.up = up
        self.cache: AskCache[str, int] = AskCache(self._send, limit=3)

    def _send(self, key: str) -> bool:
        self.keys.append(key)
        return self.up


def test_several_who_ask_the_same_put_one_question_and_all_hear() -> None:
    asked = Asked()
    for _ in range(3):
        asked.cache.ask("a", asked.got.append)
    assert asked.keys == ["a"]
    asked.cache.answer("a", 7)
    asked.cache.ask("a", asked.got.append)
    assert asked.got == [7, 7, 7, 7]
    assert asked.cache.get("a") == 7


def test_open_questions_wait_for_the_next_director_and_what_is_known_stays() -> None:
    asked = Asked(up=False)
    asked.cache.answer("a", 7)
    asked.cache.ask("a", asked.got.append)
    asked.cache.ask("b", asked.got.append)
    assert (asked.keys, asked.got) == (["b"], [7])
    asked.cache.director_back()
    assert asked.keys == ["b", "b"]
    asked.cache.answer("b", 8)
    asked.cache.director_back()
    assert (asked.keys, asked.got) == (["b", "b"], [7, 8])


def test_who_leaves_hears_nothing_and_the_next_asks_again() -> None:
    asked = Asked()
    asked.cache.ask("a", asked.got.append)
    asked.cache.leave("a", asked.got.append)
    asked.cache.ask("a", asked.got.append)
    assert asked.keys == ["a", "a"]


class Asker:
    """Who asks; all of them count how often they are compared."""

    compared = 0

    def __init__(self) -> None:
        self.got: list[int | None] = []

    def __call__(self, value: int | None) -> None:
        self.got.append(value)

    def __eq__(self, other: object) -> bool:
        Asker.compared += 1
        return self is other

    __hash__ = object.__hash__


def test_who_leaves_is_found_without_a_look_at_the_others() -> None:
    asked = Asked()
    askers = [Asker() for _ in range(1_000)]
    for asker in (*askers, askers[0], askers[998]):
        asked.cache.ask("a", asker)
    for asker in reversed(askers[1:]):
        asked.cache.leave("a", asker)
    assert Asker.compared == 0
    asked.cache.leave("a", askers[1])
    asked.cache.leave("b", askers[0])
    asked.cache.answer("a", 7)
    assert [asker.got for asker in askers if asker.got] == [[7, 7], [7]]
    assert asked.keys == ["a"]


def test_answers_and_questions_are_bounded() -> None:
    asked = Asked()
    for number, key in enumerate("abcd"):
        asked.cache.answer(key, number)
    assert [asked.cache.get(key) for key in "abcd"] == [None, 1, 2, 3]
    for key in "wxyz":
        asked.cache.ask(key, asked.got.append)
    assert asked.got == [None]


def test_forgetting_is_one_or_all() -> None:
    asked = Asked()
    asked.cache.answer("a", 1)
    asked.cache.answer("b", 2)
    asked.cache.forget("a")
    assert (asked.cache.get("a"), asked.cache.get("b")) == (None, 2)
    asked.cache.forget_all()
    assert asked.cache.get("b") is None
