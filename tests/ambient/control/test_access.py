"""The gate: exactly one bearer token, and callers that must be clients."""

from __future__ import annotations

import asyncio

import pytest

from ambient.ca.token import Caller
from ambient.control.access import Gate, peer_of
from ambient.errors import Refused, Unavailable

CALLER = Caller("n1", "ambient-system", "ztunnel", "uid")


class Knows:
    """Knows one token; of "later" it cannot tell."""

    async def verify(self, token: str) -> Caller:
        if token == "later":
            raise Unavailable("token", why="nobody can be asked")
        if token != "good":
            raise Refused("token", why="unknown")
        return CALLER


def caller(*metadata: tuple[str, str | bytes], account: str = "ambient-system/ztunnel") -> Caller:
    return asyncio.run(Gate(Knows(), accounts={account}).client(metadata))


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_a_bearer_token_of_a_client_passes(scheme: str) -> None:
    assert caller(("clusterid", "x"), ("authorization", f"{scheme} good")) == CALLER


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ([], "no bearer token"),
        ([("authorization", "Bearer good"), ("authorization", "Bearer good")], "more than one"),
        ([("authorization", b"Bearer good")], "more than one"),
        ([("authorization", "Basic good")], "not a bearer token"),
        ([("authorization", "Bearer ")], "not a bearer token"),
        ([("authorization", "Bearer bad")], "unknown"),
    ],
)
def test_anything_else_is_refused_with_its_reason(metadata: list[tuple[str, str | bytes]], reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        caller(*metadata)


def test_an_account_that_is_no_client_is_refused_by_name() -> None:
    with pytest.raises(Refused, match="ambient-system/ztunnel: is no client"):
        caller(("authorization", "Bearer good"), account="istio-system/ztunnel")


def test_who_calls_is_told_of_everybody() -> None:
    gate = Gate(Knows(), accounts=())
    assert asyncio.run(gate.caller([("authorization", "Bearer good")])) == CALLER


def test_what_cannot_be_told_is_not_a_refusal() -> None:
    with pytest.raises(Unavailable):
        caller(("authorization", "Bearer later"))


@pytest.mark.parametrize(
    ("given", "text"), [("ipv4:10.0.0.1:5", "10.0.0.1:5"), ("ipv6:%5B::1%5D:5", "[::1]:5"), ("unix:", "unix:")]
)
def test_peers_are_written_as_people_write_them(given: str, text: str) -> None:
    class Context:
        def peer(self) -> str:
            return given

    assert peer_of(Context()) == text
