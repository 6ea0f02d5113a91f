from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from ambient.agent.fresh import FromApi, FromFolder
from ambient.errors import InvalidInput
from ambient.kube.api.client import ApiClient
from ambient.kube.api.failure import NotThere
from ambient.kube.folder import ObjectFolder
from ambient.kube.objects import parse_object
from tests.support.agent_lab import namespace, pod


class Api:
    """Answers a GET as the API server does: without kind and apiVersion in lists, with them here."""

    def __init__(self, **objects: Any) -> None:
        self.objects = objects

    async def get(self, resource: Any, name: str, namespace: str = "") -> Any:
        if name not in self.objects:
            raise NotThere("GET", resource.path(namespace, name), "not found")
        return self.objects[name]


def from_api(**objects: Any) -> FromApi:
    return FromApi(cast(ApiClient, Api(**objects)))


def test_the_api_tells_pod_and_namespace_as_they_are_now() -> None:
    fresh = from_api(web=pod("web", []), shop=namespace("shop", "ambient"))
    found, home = asyncio.run(fresh.pod("shop", "web")), asyncio.run(fresh.namespace("shop"))
    assert found is not None
    assert found.name == "web"
    assert home is not None
    assert home.labels == {"istio.io/dataplane-mode": "ambient"}


def test_what_is_not_there_is_none() -> None:
    assert asyncio.run(from_api().pod("shop", "web")) is None
    assert asyncio.run(from_api().namespace("shop")) is None


def test_an_answer_that_is_no_pod_is_refused() -> None:
    with pytest.raises(InvalidInput):
        asyncio.run(from_api(web={"kind": "Pod", "apiVersion": "v1"}).pod("shop", "web"))


def test_a_folder_tells_the_same(tmp_path: Path) -> None:
    folder = ObjectFolder(tmp_path)
    fresh = FromFolder(tmp_path)
    folder.put([parse_object(namespace("shop"), "t")])
    assert asyncio.run(fresh.pod("shop", "web")) is None
    folder.put([parse_object(pod("web", []), "t")])
    found = asyncio.run(fresh.pod("shop", "web"))
    assert found is not None
    assert found.name == "web"
    assert asyncio.run(fresh.namespace("shop")) is not None
