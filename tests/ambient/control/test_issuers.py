"""Who signs: our own authority, or somebody elsewhere whom ztunnels ask themselves."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import grpc.aio
import pytest
from cryptography import x509

from ambient.ca.csr import parse_csr
from ambient.ca.roots import load_authority, make_root
from ambient.control.issuers import OwnIssuer
from ambient.errors import InvalidInput, Refused
from ambient.xds.ca_client import CaClient
from ambient.xds.key_request import KeyRequest
from tests.support.control import ControlBench, Subscriber, create_certificate, make_csr
from tests.support.istio_csr import IstioCsr

WEB = "spiffe://cluster.local/ns/shop/sa/web"
POD = """
{apiVersion: v1, kind: Pod, metadata: {name: web, namespace: shop},
 spec: {nodeName: n1, serviceAccountName: web, containers: [{name: c, image: x, command: [a]}]}}
"""


def own() -> OwnIssuer:
    certificate, key = make_root(datetime.now(UTC))
    files = {"root-cert.pem": certificate.encode(), "root-key.pem": key.encode()}
    root = load_authority(files, datetime.now(UTC))
    return OwnIssuer(lambda: root, default=timedelta(hours=24), longest=timedelta(days=90))


@pytest.mark.parametrize(("wanted", "hours"), [(None, 24), (timedelta(hours=6), 6), (timedelta(days=400), 90 * 24)])
def test_our_own_authority_signs_for_as_long_as_is_asked_within_bounds(wanted: timedelta | None, hours: int) -> None:
    csr = make_csr(WEB)
    issued = asyncio.run(own().issue(parse_csr(csr), csr, wanted))
    left = issued.not_after - datetime.now(UTC)
    assert timedelta(hours=hours) - timedelta(minutes=1) < left <= timedelta(hours=hours)


def test_our_own_authority_is_no_signer_of_another_name() -> None:
    csr = make_csr(WEB)
    with pytest.raises(InvalidInput, match="no external signers"):
        asyncio.run(own().issue(parse_csr(csr), csr, None, "blue"))


def test_with_an_issuer_elsewhere_ztunnels_get_certificates_there_and_discovery_here(tmp_path: Path) -> None:
    async def scenario() -> None:
        serving = tmp_path / "serving"
        serving.mkdir()
        async with IstioCsr(tmp_path, "known") as outside:
            outside.serving(serving, "istiod.istio-system.svc")
            environment = {"AMBIENT_ISSUER": "none", "AMBIENT_SERVING_DIR": str(serving)}
            environment["AMBIENT_ROOTS"] = str(tmp_path / "outside-root.pem")
            async with ControlBench(tmp_path, **environment) as bench:
                bench.apply(POD)
                (bench.ca / "root-cert.pem").write_text(outside.root)
                async with Subscriber(bench.client()) as ztunnel:
                    await ztunnel.synced()
                request = KeyRequest(WEB)
                chain = await CaClient(outside.client(), 6 * 3600).sign(WEB, request.csr_pem)
                issued = request.accept(chain, time.time())
                assert 0 < issued.not_after - time.time() <= 6 * 3600
                assert (
                    x509.load_pem_x509_certificate(issued.roots.encode()).subject.rfc4514_string() == "O=cert-manager"
                )
                with pytest.raises(grpc.aio.AioRpcError) as refused:
                    await create_certificate(bench.client(), make_csr(WEB), WEB)
                assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
                assert "CA_ADDRESS" in (refused.value.details() or "")
                assert bench.plane.trust.issuer.roots == outside.root

    asyncio.run(scenario())


def test_a_stranger_gets_nothing_elsewhere_either(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with IstioCsr(tmp_path, "known") as outside:
            settings = outside.client()
            (tmp_path / "outside-token").write_text("other")
            with pytest.raises(Refused):
                await CaClient(settings, 3600).sign(WEB, KeyRequest(WEB).csr_pem)

    asyncio.run(scenario())
