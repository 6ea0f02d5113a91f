"""Certificates from a signer of the cluster: asked for, approved, checked, taken away; and how it can go wrong."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import Any

import pytest
from cryptography import x509

from ambient.ca.csr import parse_csr
from ambient.ca.roots import make_root
from ambient.control.kubernetes_signer import KubernetesSigner
from ambient.errors import InvalidInput, Unavailable
from ambient.kube.api.client import ApiClient
from tests.ambient.ca.test_roots import signed
from tests.support.control import make_csr
from tests.support.kube_api import Answer, FakeApi, status_body
from tests.support.signer import Signer, sign_approved
from tests.support.waiting import eventually

NAME = "example.com/mesh"
IDENTITY = "spiffe://cluster.local/ns/shop/sa/web"
ROOT = tuple(part.encode() for part in make_root(datetime.now(UTC)))
SIGNER = Signer(signed("intermediate", (ROOT[0], ROOT[1]), now=datetime.now(UTC)))
COLLECTION = "/apis/certificates.k8s.io/v1/certificatesigningrequests"


class World:
    def __init__(self, server: FakeApi, api: ApiClient) -> None:
        self.server, self.api = server, api
        self.seen: list[Mapping[str, Any]] = []

    def issuer(self, **options: Any) -> KubernetesSigner:
        given = {"default": timedelta(hours=24), "longest": timedelta(days=90), "look_s": 0.01, **options}
        return KubernetesSigner(self.api, NAME, lambda: ROOT[0].decode(), **given)

    async def issue(self, wanted: timedelta | None = None, signer: str = "", **options: Any) -> tuple[str, ...]:
        csr = make_csr(IDENTITY)
        return (await self.issuer(**options).issue(parse_csr(csr), csr, wanted, signer)).chain

    @asynccontextmanager
    async def controller(self, name: str = NAME) -> AsyncIterator[None]:
        task = asyncio.create_task(sign_approved(self.api, SIGNER, name, self.seen))
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    @property
    def left(self) -> int:
        return len(self.server._objects.get(COLLECTION, {}))


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    async with FakeApi() as server, ApiClient(server.access()) as api:
        yield World(server, api)


def test_a_certificate_comes_with_its_chain_and_the_roots_and_nothing_is_left() -> None:
    async def scenario() -> None:
        async with world() as here, here.controller():
            chain = await here.issue()
            leaf = x509.load_pem_x509_certificate(chain[0].encode())
            leaf.verify_directly_issued_by(x509.load_pem_x509_certificate(chain[1].encode()))
            assert chain[2] == ROOT[0].decode()
            assert here.left == 0
            (asked,) = here.seen
            assert asked["spec"]["signerName"] == NAME
            assert asked["spec"]["expirationSeconds"] == 24 * 3600
            assert {"client auth", "server auth"} < set(asked["spec"]["usages"])

    asyncio.run(scenario())


@pytest.mark.parametrize(("hours", "seconds"), [(6, 21600), (24 * 365, 90 * 86400), (0.01, 600)])
def test_the_life_that_was_asked_for_is_asked_of_the_signer_within_bounds(hours: float, seconds: int) -> None:
    async def scenario() -> None:
        async with world() as here, here.controller():
            await here.issue(timedelta(hours=hours))
            assert here.seen[0]["spec"]["expirationSeconds"] == seconds

    asyncio.run(scenario())


def test_our_own_server_certificate_comes_from_the_same_signer() -> None:
    async def scenario() -> None:
        async with world() as here, here.controller():
            made = await here.issuer().serving(["a.svc"], [ip_address("127.0.0.1")], timedelta(hours=12))
            leaf = x509.load_pem_x509_certificate(made.chain.encode())
            names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
            assert names.get_values_for_type(x509.DNSName) == ["a.svc"]
            assert "PRIVATE KEY" in made.key

    asyncio.run(scenario())


def test_another_signer_can_be_named_below_the_domain_that_is_set() -> None:
    async def scenario() -> None:
        async with world() as here, here.controller("signers.example.com/blue"):
            await here.issue(signer="blue", domain="signers.example.com")
            for name, domain in (("blue", ""), ("../kubernetes.io/kubelet-serving", "signers.example.com")):
                with pytest.raises(InvalidInput, match="CertSigner"):
                    await here.issue(signer=name, domain=domain)

    asyncio.run(scenario())


def test_where_somebody_else_approves_we_only_wait() -> None:
    async def scenario() -> None:
        async with world() as here, here.controller():
            asking = asyncio.create_task(here.issue(approve=False))
            await eventually(lambda: here.left == 1)
            (stored,) = here.server._objects[COLLECTION].values()
            assert "status" not in stored
            here.server.put({**stored, "status": {"conditions": [{"type": "Approved", "status": "True"}]}})
            assert len(await asking) == 3

    asyncio.run(scenario())


@pytest.mark.parametrize("kind", ["Denied", "Failed"])
def test_a_signer_that_will_not_is_quoted(kind: str) -> None:
    async def scenario() -> None:
        async with world() as here:
            asking = asyncio.create_task(here.issue(approve=False))
            await eventually(lambda: here.left == 1)
            (stored,) = here.server._objects[COLLECTION].values()
            condition = {"type": kind, "status": "True", "reason": "NotToday", "message": "come back tomorrow"}
            here.server.put({**stored, "status": {"conditions": [condition]}})
            with pytest.raises(Unavailable, match=f"{NAME}: {kind}: NotToday come back tomorrow"):
                await asking
            assert here.left == 0

    asyncio.run(scenario())


def test_nobody_who_signs_is_unavailable_in_time_and_nothing_is_left() -> None:
    async def scenario() -> None:
        async with world() as here:
            with pytest.raises(Unavailable, match="no certificate within"):
                await here.issue(timeout_s=0.2)
            assert here.left == 0

    asyncio.run(scenario())


@pytest.mark.parametrize("answer", [b"rubbish", SIGNER.pem])
def test_what_the_signer_made_wrong_never_reaches_the_caller(answer: bytes) -> None:
    async def scenario() -> None:
        async with world() as here:
            asking = asyncio.create_task(here.issue())
            await eventually(lambda: here.left == 1)
            (stored,) = here.server._objects[COLLECTION].values()
            here.server.put({**stored, "status": {"certificate": base64.b64encode(answer).decode()}})
            with pytest.raises(Unavailable, match="certificate of the external signer"):
                await asking

    asyncio.run(scenario())


def test_missing_rights_are_ours_to_mend_not_the_callers() -> None:
    async def scenario() -> None:
        async with world() as here:
            here.server.say(COLLECTION, Answer(403, status_body(403, "Forbidden", "may not create")))
            with pytest.raises(Unavailable, match="may not create"):
                await here.issue()

    asyncio.run(scenario())
