"""Objects that are read by their names because others refer to them: shown together, and no others."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from typing import Any

import pytest

from ambient.kube.api.source import ApiSource, Beside
from ambient.kube.objects import Pod, Records, Secret
from ambient.kube.resource import Name
from tests.ambient.kube.api.test_source import after, pod, reading
from tests.support.kube_api import Answer, FakeApi, status_body
from tests.support.waiting import eventually

SECRETS = "/api/v1/namespaces/shop/secrets"
KEY = "Secret/shop/site"
FORBIDDEN = Answer(403, status_body(403, "Forbidden", 'secrets "site" is forbidden'))


def secret(name: str = "site", text: str = "one") -> dict[str, Any]:
    data = {"tls.crt": base64.b64encode(text.encode()).decode()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "shop"}, "data": data}


def named(records: Records) -> set[Name]:
    """What the label `uses` of pods names."""
    return {Name("Secret", "shop", one.labels["uses"]) for one in records.of(Pod) if "uses" in one.labels}


BESIDE = Beside(named, ("Pod",))


def text(records: Records) -> str:
    found = records.find(Secret, "shop", "site")
    return found.data["tls.crt"] if found is not None else ""


def test_what_refers_to_something_is_shown_together_with_it_and_nothing_else_is_read() -> None:
    async def scenario(api: FakeApi, _: ApiSource, changes: AsyncIterator[Records]) -> None:
        api.put(secret())
        api.put(secret("other"))
        api.put(pod("a", uses="site"))
        first = await anext(changes)
        assert {"Pod/shop/a", KEY} == set(first.by_key)
        assert {query["fieldSelector"] for query in api.asked("GET", SECRETS)} == {"metadata.name=site"}
        assert not api.asked("GET", "/api/v1/secrets")

    reading(scenario, beside=BESIDE)


def test_a_change_of_it_is_one_of_the_mesh_and_without_a_referrer_it_is_forgotten() -> None:
    async def scenario(api: FakeApi, _: ApiSource, changes: AsyncIterator[Records]) -> None:
        api.put(pod("a", uses="site"))
        assert KEY not in (await anext(changes)).by_key
        api.put(secret())
        assert (await after(changes, text)).changed == {KEY}
        api.put(secret(text="two"))
        await after(changes, lambda records: text(records) == "two")
        api.put(pod("a"))
        last = await after(changes, lambda records: KEY not in records.by_key)
        assert last.changed == {"Pod/shop/a", KEY}
        api.put(secret(text="three"))
        api.put(pod("b"))
        assert (await after(changes, lambda records: "Pod/shop/b" in records.by_key)).changed == {"Pod/shop/b"}

    reading(scenario, beside=BESIDE)


def test_one_that_may_not_be_read_holds_up_nothing_and_is_read_once_it_may_be() -> None:
    async def scenario(api: FakeApi, source: ApiSource, changes: AsyncIterator[Records]) -> None:
        api.put(secret())
        api.put(pod("a", uses="site"))
        first = await anext(changes)
        assert KEY not in first.by_key
        assert "forbidden" in source.named.trouble(KEY)
        assert source.named.trouble("Secret/shop/other") == ""
        api._answers.clear()
        assert text(await after(changes, text)) == "one"
        assert source.named.trouble(KEY) == ""

    api = FakeApi()
    api.say(SECRETS, *[FORBIDDEN] * 1000)
    reading(scenario, api, beside=BESIDE)


def test_news_wait_for_what_they_refer_to() -> None:
    async def scenario(api: FakeApi, _: ApiSource, changes: AsyncIterator[Records]) -> None:
        api.put(secret())
        await anext(changes)
        api.say(SECRETS, Answer(503), Answer(503))
        api.put(pod("a", uses="site"))
        records = await after(changes, lambda found: "Pod/shop/a" in found.by_key)
        assert text(records) == "one"
        await eventually(lambda: len(api.asked("GET", SECRETS)) >= 3)

    reading(scenario, beside=BESIDE)


def test_what_is_not_answered_holds_up_nothing_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ambient.kube.api.source._PATIENCE_S", 0.4)
    monkeypatch.setattr("ambient.kube.api.source._PATIENCE_THEN_S", 0.1)

    async def scenario(api: FakeApi, _: ApiSource, changes: AsyncIterator[Records]) -> None:
        api.put(pod("a", uses="site"))
        began = asyncio.get_running_loop().time()
        async with asyncio.timeout(3):
            assert "Pod/shop/a" in (await anext(changes)).by_key
        assert asyncio.get_running_loop().time() - began > 0.3, "at the start there is more patience"
        async with asyncio.timeout(2):
            api.put(pod("b", uses="other"))
            await after(changes, lambda found: "Pod/shop/b" in found.by_key)
            api.put(pod("c"))
            await after(changes, lambda found: "Pod/shop/c" in found.by_key)
        api._answers.clear()
        api.put(secret("third"))
        api.put(pod("d", uses="third"))
        await after(changes, lambda found: "Secret/shop/third" in found.by_key)

    api = FakeApi()
    api.say(SECRETS, *[Answer(hang=True)] * 2)
    reading(scenario, api, beside=BESIDE)


def test_of_a_namespace_no_more_than_so_many_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ambient.kube.api.named.MOST", 2)

    async def scenario(api: FakeApi, source: ApiSource, changes: AsyncIterator[Records]) -> None:
        api.put(pod("x", uses="x"))
        api.put(pod("y", uses="y"))
        await anext(changes)
        api.put(pod("a", uses="a"))
        await after(changes, lambda found: "Pod/shop/a" in found.by_key)
        read = {query["fieldSelector"] for query in api.asked("GET", SECRETS)}
        assert read == {"metadata.name=x", "metadata.name=y"}
        assert "more than 2" in source.named.trouble("Secret/shop/a")
        assert source.named.trouble("Secret/shop/x") == ""
        api.put(secret("a"))
        api.put(pod("x"))
        await after(changes, lambda found: "Secret/shop/a" in found.by_key)
        assert source.named.trouble("Secret/shop/a") == ""

    reading(scenario, beside=BESIDE)
