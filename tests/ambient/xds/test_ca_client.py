"""The CA client against a real control plane, and the whole way from a wish to a certificate."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path

import grpc
import grpc.aio
import pytest

from ambient.errors import Refused, Unavailable
from ambient.xds.ca_client import CaClient
from ambient.xds.channel import ServerSettings
from ambient.xds.key_request import KeyRequest
from ambient.xds.wire import message
from tests.support.control import ControlBench

PODS = """
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop}
spec: {nodeName: n1, serviceAccountName: web, containers: [{name: c, image: none, command: [sleep]}]}
status: {phase: Running, podIPs: [{ip: 10.0.1.2}]}
---
"""
WEB = "spiffe://cluster.local/ns/shop/sa/web"


def test_a_pods_identity_is_signed_and_a_strangers_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlBench(tmp_path) as control:
            control.apply(PODS)
            client = CaClient(control.client(), 3600)
            issued = None
            async with asyncio.timeout(10):
                while issued is None:
                    request = KeyRequest(WEB)
                    try:
                        issued = request.accept(await client.sign(WEB, request.csr_pem), time.time())
                    except Refused:
                        # The control plane has not read the folder yet.
                        continue
            assert 0 < issued.not_after - time.time() <= 3700
            with pytest.raises(Refused):
                await client.sign(WEB.replace("web", "other"), KeyRequest(WEB).csr_pem)

    asyncio.run(scenario())


def test_a_ca_that_is_not_there_and_missing_files_are_unavailable(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlBench(tmp_path) as control:
            settings = control.client()
        for broken in (settings, replace(settings, root=tmp_path / "none"), replace(settings, token=tmp_path / "none")):
            with pytest.raises(Unavailable):
                await CaClient(broken, 60).sign(WEB, KeyRequest(WEB).csr_pem)

    asyncio.run(scenario())


class RawCa:
    """A CA that keeps what it is asked, octet by octet, and answers as it is told; without TLS."""

    def __init__(self) -> None:
        self.asked: list[tuple[bytes, dict[str, str]]] = []
        self.answer: list[str] | grpc.StatusCode = []

    async def _serve(self, data: bytes, context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        metadata = context.invocation_metadata() or ()
        self.asked.append((data, {key: value for key, value in metadata if isinstance(value, str)}))
        if isinstance(self.answer, grpc.StatusCode):
            await context.abort(self.answer, "because")
        return bytes(message("istio.v1.auth.IstioCertificateResponse")(cert_chain=self.answer).SerializeToString())

    async def __aenter__(self) -> RawCa:
        self._server = grpc.aio.server()
        handler = grpc.unary_unary_rpc_method_handler(self._serve)
        self._server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(
                    "istio.v1.auth.IstioCertificateService", {"CreateCertificate": handler}
                ),
            )
        )
        self.port = self._server.add_insecure_port("127.0.0.1:0")
        await self._server.start()
        return self

    async def __aexit__(self, *_error: object) -> None:
        await self._server.stop(None)

    def settings(self) -> ServerSettings:
        return ServerSettings(
            target=f"127.0.0.1:{self.port}",
            root="SYSTEM",
            plaintext=True,
            cluster="west",
            headers=(("x-team", "mesh"),),
        )


def test_the_request_has_csr_lifetime_and_the_identity_to_impersonate_and_nothing_else() -> None:
    async def scenario() -> None:
        async with RawCa() as ca:
            ca.answer = ["leaf", "intermediate", "root"]
            request = KeyRequest(WEB)
            assert await CaClient(ca.settings(), 86400).sign(WEB, request.csr_pem) == ca.answer
            ((data, metadata),) = ca.asked
            assert metadata["clusterid"] == "west"
            assert metadata["x-team"] == "mesh"
            read = message("istio.v1.auth.IstioCertificateRequest").FromString(data)
            assert (read.csr, read.validity_duration) == (request.csr_pem, 86400)
            assert dict(read.metadata) == {"ImpersonatedIdentity": WEB}
            again = message("istio.v1.auth.IstioCertificateRequest")(csr=read.csr, validity_duration=86400)
            again.metadata.update({"ImpersonatedIdentity": WEB})
            assert data == again.SerializeToString()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (grpc.StatusCode.UNAUTHENTICATED, Refused),
        (grpc.StatusCode.PERMISSION_DENIED, Refused),
        (grpc.StatusCode.INVALID_ARGUMENT, Refused),
        (grpc.StatusCode.UNAVAILABLE, Unavailable),
        (grpc.StatusCode.DEADLINE_EXCEEDED, Unavailable),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, Unavailable),
        (grpc.StatusCode.INTERNAL, Unavailable),
    ],
)
def test_what_the_ca_will_not_do_and_what_it_cannot_do_now_are_told_apart(
    code: grpc.StatusCode, kind: type[Exception]
) -> None:
    async def scenario() -> None:
        async with RawCa() as ca:
            ca.answer = code
            with pytest.raises(kind, match=f"{code.name}: because"):
                await CaClient(ca.settings(), 60).sign(WEB, KeyRequest(WEB).csr_pem)

    asyncio.run(scenario())
