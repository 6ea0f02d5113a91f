"""Tickets from the command line: in a cluster through its API; in a lab, see tests/lab/test_join.py."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from ambient.ca.ticket import NOTE, admit
from ambient.cli.env import Exit, Usage
from ambient.cli.ticket import ROOT, Wanted, in_cluster
from ambient.errors import MeshError, Refused
from ambient.kube.api.client import ApiClient
from tests.support.cli import FakeMesh, ambient
from tests.support.kube_api import FakeApi

PEM = "-----BEGIN CERTIFICATE-----\n"
GROUP = {
    "apiVersion": "networking.istio.io/v1",
    "kind": "WorkloadGroup",
    "metadata": {"name": "ledger", "namespace": "shop", "annotations": {"a": "b", NOTE + "1" * 16: "5 old"}},
    "spec": {"template": {}},
}
CONFIG_MAP = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": ROOT, "namespace": "shop"},
    "data": {"root-cert.pem": PEM},
}


def _wanted(control: str = "c:15012", root: str = "", group: str = "ledger") -> Wanted:
    return Wanted("shop", group, 1000.0, 60.0, control, root)


def _against(scenario: Callable[[FakeApi, ApiClient], Awaitable[None]]) -> None:
    async def run() -> None:
        async with FakeApi() as api, ApiClient(api.access()) as client:
            api.put(GROUP)
            api.put(CONFIG_MAP)
            await scenario(api, client)

    asyncio.run(run())


def test_a_ticket_leaves_its_note_on_the_group_and_clears_expired_ones() -> None:
    async def scenario(api: FakeApi, client: ApiClient) -> None:
        ticket = await in_cluster(client, _wanted())
        assert (ticket.control, ticket.root) == ("c:15012", PEM)
        stored = api.stored("WorkloadGroup", "ledger", "shop")
        assert stored is not None
        notes = stored["metadata"]["annotations"]
        assert set(notes) == {"a", NOTE + ticket.number}
        assert admit(notes, ticket.number, ticket.secret, 1059.0)

    _against(scenario)


def test_roots_that_are_given_count() -> None:
    async def scenario(api: FakeApi, client: ApiClient) -> None:
        assert (await in_cluster(client, _wanted(root=PEM + "own"))).root == PEM + "own"

    _against(scenario)


@pytest.mark.parametrize(
    ("wanted", "kind", "why"),
    [
        (_wanted(control=""), Usage, "--control is needed"),
        (_wanted(group="nowhere"), Refused, '"nowhere" not found'),
        (_wanted(root="nothing"), MeshError, "no certificate in it"),
    ],
)
def test_what_cannot_be_is_refused(wanted: Wanted, kind: type[MeshError], why: str) -> None:
    async def scenario(api: FakeApi, client: ApiClient) -> None:
        with pytest.raises(kind, match=why):
            await in_cluster(client, wanted)

    _against(scenario)


@pytest.mark.parametrize(
    "options",
    [
        *(("--group", "ledger"), ("--group", "a/b/c"), ("--group", "/b")),
        *(("--group", "a/b", "--ttl", "8d"), ("--group", "a/b", "--ttl", "x"), ("--group", "a/b", "--ttl", "0s")),
        ("--group", "a/b", "--control", "somewhere"),
    ],
)
def test_slips_are_told_as_such(options: tuple[str, ...]) -> None:
    assert ambient(FakeMesh(), "ticket", "create", *options).code == Exit.USAGE
