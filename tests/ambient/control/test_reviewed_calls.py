"""Calls with tokens of pods, end to end: what a caller hears when his token is good, bad, or nobody can tell."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from tests.ambient.control.test_server_kubernetes import Bench, pod
from tests.support import token_review
from tests.support.control import Subscriber, create_certificate, make_csr, until
from tests.support.kube_api import Answer, FakeApi, status_body

REVIEWS = "/apis/authentication.k8s.io/v1/tokenreviews"
WEB = "spiffe://cluster.local/ns/shop/sa/default"


def token(mark: str) -> str:
    return token_review.token(mark, end=time.time() + 3600)


def reviewed(**changes: Any) -> Answer:
    return Answer(201, json.dumps(token_review.answer(**changes)).encode())


async def asked(bench: Bench, mark: str, csr: str = "") -> grpc.StatusCode | None:
    """What the authority answers to a token: None is a certificate."""
    try:
        await create_certificate(bench.client(token=token(mark)), csr or make_csr(WEB))
    except grpc.aio.AioRpcError as error:
        return error.code()
    return None


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (reviewed(), None),
        (reviewed(extra={"node-name": ["n2"]}), grpc.StatusCode.PERMISSION_DENIED),
        (reviewed(authenticated=False), grpc.StatusCode.UNAUTHENTICATED),
        (reviewed(audiences=["other"]), grpc.StatusCode.UNAUTHENTICATED),
        (reviewed(extra={"pod-uid": None}), grpc.StatusCode.UNAUTHENTICATED),
        (Answer(500), grpc.StatusCode.UNAVAILABLE),
        (Answer(403, status_body(403, "Forbidden", "rbac")), grpc.StatusCode.UNAVAILABLE),
        (Answer(201, b"rubbish"), grpc.StatusCode.UNAVAILABLE),
    ],
)
def test_the_authority_answers_as_the_review_was(tmp_path: Path, answer: Answer, code: grpc.StatusCode | None) -> None:
    async def scenario() -> None:
        async with FakeApi() as api:
            api.put(pod())
            bench = Bench(tmp_path / "one", api)
            bench.environment |= {"AMBIENT_TOKEN_KEY": "none", "AMBIENT_NEWS_PATIENCE": "20ms"}
            async with bench:
                api.say(REVIEWS, answer)
                assert await asked(bench, "a") is code

    asyncio.run(scenario())


def test_without_an_api_server_known_ztunnels_are_served_and_new_ones_hear_that_they_should_try_again(
    tmp_path: Path,
) -> None:
    async def scenario() -> None:
        async with FakeApi() as api:
            api.put(pod())
            bench = Bench(tmp_path / "one", api)
            bench.environment["AMBIENT_TOKEN_KEY"] = "none"
            async with bench:
                api.say(REVIEWS, reviewed())
                known = token("known")
                await create_certificate(bench.client(token=known), make_csr(WEB))
                await api.go_away()
                await create_certificate(bench.client(token=known), make_csr(WEB))
                async with Subscriber(bench.client(token=known)) as ztunnel:
                    await ztunnel.synced()
                assert await asked(bench, "new") is grpc.StatusCode.UNAVAILABLE
                async with Subscriber(bench.client(token=token("other"))) as stranger:
                    await until(lambda: any("cannot be asked" in state.why for state in stranger.states))
                    assert not any(state.state == "synced" for state in stranger.states)

    asyncio.run(scenario())


def test_any_pod_gets_a_certificate_and_only_clients_get_discovery(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with FakeApi() as api:
            api.put(pod())
            bench = Bench(tmp_path / "one", api)
            bench.environment["AMBIENT_TOKEN_KEY"] = "none"
            async with bench:
                api.say(REVIEWS, reviewed(user={"username": "system:serviceaccount:shop:default"}))
                own = token("own")
                assert len(await create_certificate(bench.client(token=own), make_csr(WEB))) == 2
                async with Subscriber(bench.client(token=own)) as curious:
                    await until(lambda: any("is no client" in state.why for state in curious.states))
                    assert not any(state.state == "synced" for state in curious.states)

    asyncio.run(scenario())
