"""MeshConfig: what is read of providers that authorize, and what makes one none."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from ambient.errors import InvalidInput
from ambient.kube.mesh_config import MeshConfig, Provider, read_mesh_config
from tests.support.random_scene import PROVIDERS

GOOD = {"name": "good", "envoyExtAuthzGrpc": {"service": "a", "port": 1}}


def read(*providers: Any) -> MeshConfig:
    return read_mesh_config(json.dumps({"extensionProviders": list(providers)}), "test")


def http(**fields: Any) -> dict[str, Any]:
    return {"name": "p", "envoyExtAuthzHttp": {"service": "a.b", "port": 80, **fields}}


def test_what_is_read() -> None:
    found = read_mesh_config(PROVIDERS, "test")
    assert found.refused == ()
    host = "authz.shop.svc.cluster.local"
    by_grpc = Provider(name="by-grpc", kind="grpc", hostname=host, port=9000, timeout_ms=500, body=1000)
    assert found.providers["by-grpc"] == replace(by_grpc, body_in_part=True, body_packed=True)
    assert found.providers["by-http"] == Provider(
        name="by-http",
        kind="http",
        hostname=host,
        namespace="shop",
        port=8000,
        status=503,
        path_prefix="/check",
        asked_with=("x-a", "x-b*"),
        added=(("x-from", "waypoint"),),
        upstream=("x-user", "x-team"),
        told_denied=("x-why", "*"),
        told_allowed=("x-ok",),
    )


def test_everything_else_in_it_is_for_others() -> None:
    found = read_mesh_config("trustDomain: x\nextensionProviders: [{name: z, prometheus: {}}]", "test")
    assert found == MeshConfig()
    assert read_mesh_config("", "test") == MeshConfig()


BAD: list[tuple[dict[str, Any], str]] = [
    ({"envoyExtAuthzHttp": {"service": "a", "port": 1}}, "[1].name: is required"),
    ({"name": "a b", "envoyExtAuthzHttp": {"service": "a", "port": 1}}, "is no name of a provider"),
    ({"name": "p", "envoyExtAuthzHttp": {}, "envoyExtAuthzGrpc": {}}, "more than one kind"),
    (http(service="a b"), "envoyExtAuthzHttp.service: 'a b' is not a DNS name"),
    (http(service="A_/b"), "envoyExtAuthzHttp.service: 'A_' is not a DNS label"),
    (http(port=0), "envoyExtAuthzHttp.port: 0 is not a port"),
    (http(timeout="0s"), "has to be at least 1ms"),
    (http(timeout=5), "envoyExtAuthzHttp.timeout: expected a string"),
    (http(failOpen="yes"), "envoyExtAuthzHttp.failOpen: expected true or false"),
    (http(statusOnError="200"), "'200' is not a status of 400 to 599"),
    (http(pathPrefix="check"), "'check' is no path"),
    (http(headersToUpstreamOnAllow=["x-u-*"]), "'x-u-*': a wildcard is not supported here"),
    (http(headersToUpstreamOnAllow=["*"]), "'*': a wildcard is not supported here"),
    (http(headersToUpstreamOnAllow=["a b"]), "'a b' is not an HTTP header name"),
    (http(includeAdditionalHeadersInCheck={"a": "b\nc"}), "line breaks"),
    (http(includeRequestBodyInCheck={"maxRequestBytes": 0}), "0 is not in range"),
    (http(includeRequestBodyInCheck={"maxRequestBytes": 1 << 30}), "is not in range"),
    (http(retries=3), "envoyExtAuthzHttp.retries: unknown field"),
    ({"name": "p", "envoyExtAuthzGrpc": {"service": "a", "port": 1, "pathPrefix": "/"}}, "pathPrefix: unknown field"),
]


@pytest.mark.parametrize(("provider", "why"), BAD, ids=[why for _, why in BAD])
def test_a_provider_with_one_bad_field_is_none_and_those_beside_it_stay(provider: dict[str, Any], why: str) -> None:
    found = read(GOOD, provider)
    assert list(found.providers) == ["good"]
    (told,) = found.refused
    assert why in told
    assert "extensionProviders[1]" in told


def test_of_two_with_one_name_there_is_none() -> None:
    found = read(http(), http(port=81))
    assert (dict(found.providers), found.refused) == ({}, ("extensionProviders: 'p' is there twice",))
    assert dict(read(http(), http(port=0)).providers) == {}
    odd = {"name": {"a": 1}}
    assert len(read(odd, odd).refused) == 2


@pytest.mark.parametrize("text", ["[1]", "a: b\n---\nc: d", "{"])
def test_what_is_no_mesh_config(text: str) -> None:
    with pytest.raises(InvalidInput):
        read_mesh_config(text, "test")
