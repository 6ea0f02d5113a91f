"""CreateCertificate over gRPC: who gets what, and that every refusal says why and gives nothing."""

from __future__ import annotations

import asyncio
from pathlib import Path

import grpc
import grpc.aio
import pytest
from cryptography import x509

from ambient.xds.wire import message
from tests.support.control import ControlBench, create_certificate, make_csr, raw_certificate

POD = """
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: shop}}
spec: {{nodeName: {node}, serviceAccountName: {name}, containers: [{{name: c, image: none, command: [sleep]}}]}}
status: {{phase: {phase}}}
---
"""
PODS = (
    POD.format(name="web", node="n1", phase="Running")
    + POD.format(name="db", node="n2", phase="Running")
    + POD.format(name="done", node="n1", phase="Succeeded")
    + POD.format(name="dead", node="n1", phase="Failed")
    + POD.format(name="new", node="n1", phase="Pending")
)


DENIED, INVALID = grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.INVALID_ARGUMENT


def identity(account: str, trust_domain: str = "cluster.local") -> str:
    return f"spiffe://{trust_domain}/ns/shop/sa/{account}"


async def refusal(bench: ControlBench, csr: str, named: str = "", **client: str) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await create_certificate(bench.client(**client), csr, named)
    return caught.value


def run(tmp_path: Path, code: grpc.StatusCode, reason: str, csr: str, named: str = "", **client: str) -> None:
    async def scenario() -> None:
        async with ControlBench(tmp_path, AMBIENT_NEWS_PATIENCE="20ms") as bench:
            bench.apply(PODS)
            error = await refusal(bench, csr, named, **client)
            assert error.code() is code
            assert reason in (error.details() or "")
            metrics = bench.plane.metrics.render()
            assert b"citadel_server_success_cert_issuance_count 0.0" in metrics
            assert f'code="{code.name}",service="certificates"}} 1.0'.encode() in metrics
            refused = metrics.decode().count("ambient_control_identity_refusals_total{")
            assert refused == (1 if code is DENIED else 0)

    asyncio.run(scenario())


@pytest.mark.parametrize("account", ["db", "done", "dead", "nobody"])
def test_accounts_without_a_living_pod_on_the_callers_node_are_refused(tmp_path: Path, account: str) -> None:
    run(tmp_path, DENIED, "no pod of this account runs on node n1", make_csr(identity(account)))


def test_another_trust_domain_is_refused(tmp_path: Path) -> None:
    run(tmp_path, DENIED, "speaks for trust domain", make_csr(identity("web", "other.example")))


def test_the_agent_gets_no_certificates(tmp_path: Path) -> None:
    run(tmp_path, DENIED, "may not ask for certificates", make_csr(identity("web")), account="agent")


def test_without_a_token_nothing_is_looked_at(tmp_path: Path) -> None:
    run(tmp_path, grpc.StatusCode.UNAUTHENTICATED, "not a token", "rubbish", token="x")


def test_the_named_identity_must_be_the_one_of_the_request(tmp_path: Path) -> None:
    run(tmp_path, INVALID, "its CSR is for", make_csr(identity("db")), identity("web"))


def test_a_request_that_is_none_is_refused(tmp_path: Path) -> None:
    run(tmp_path, INVALID, "not exactly one PEM block", "rubbish")


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"\xff\xff", "bytes are not that message"), (b"\x0a" + b"\xff\xff\x07" + b"a" * 131071, "at most 65536")],
)
def test_bytes_that_are_no_request_or_too_many_are_refused(tmp_path: Path, data: bytes, reason: str) -> None:
    async def scenario() -> None:
        async with ControlBench(tmp_path) as bench:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await raw_certificate(bench.client(), data)
            assert caught.value.code() is INVALID
            assert reason in (caught.value.details() or "")

    asyncio.run(scenario())


def test_external_signers_are_refused_by_name(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlBench(tmp_path) as bench:
            bench.apply(PODS)
            request = message("istio.v1.auth.IstioCertificateRequest")(csr=make_csr(identity("web")))
            request.metadata.update({"CertSigner": "clusterissuers.cert-manager.io/x"})
            with pytest.raises(grpc.aio.AioRpcError, match="no external signers"):
                await raw_certificate(bench.client(), request.SerializeToString())

    asyncio.run(scenario())


def test_a_pod_that_has_not_started_yet_can_have_its_certificate(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlBench(tmp_path) as bench:
            bench.apply(PODS)
            assert len(await create_certificate(bench.client(), make_csr(identity("new")))) == 2

    asyncio.run(scenario())


def test_a_request_that_is_faster_than_the_news_of_its_pod_waits_for_them(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlBench(tmp_path) as bench:
            asking = asyncio.create_task(create_certificate(bench.client(), make_csr(identity("web"))))
            await asyncio.wait({asking}, timeout=0.1)
            assert not asking.done()
            bench.apply(PODS)
            assert len(await asking) == 2

    asyncio.run(scenario())


def test_a_request_without_hope_is_answered_at_once_and_the_others_after_the_patience(tmp_path: Path) -> None:
    async def scenario(csr: str, patience: str, reason: str) -> None:
        folder = tmp_path / patience
        folder.mkdir()
        async with ControlBench(folder, AMBIENT_NEWS_PATIENCE=patience) as bench, asyncio.timeout(60):
            assert reason in ((await refusal(bench, csr)).details() or "")

    asyncio.run(scenario(make_csr(identity("web", "other.example")), "1h", "trust domain"))
    asyncio.run(scenario(make_csr(identity("nobody")), "100ms", "no pod of this account"))


@pytest.mark.parametrize(("asked", "hours"), [(0, 24), (3600, 1), (-5, 24), (2**62, 90 * 24)])
def test_any_lifetime_that_is_asked_for_is_answered_within_limits(tmp_path: Path, asked: int, hours: int) -> None:
    async def scenario() -> None:
        async with ControlBench(tmp_path) as bench:
            bench.apply(PODS)
            chain = await create_certificate(bench.client(), make_csr(identity("web")), ttl_s=asked)
            leaf = x509.load_pem_x509_certificate(chain[0].encode())
            seconds = (leaf.not_valid_after_utc - leaf.not_valid_before_utc).total_seconds()
            assert hours * 3600 <= seconds <= hours * 3600 + 300

    asyncio.run(scenario())


def test_the_log_names_who_got_what(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        async with ControlBench(tmp_path) as bench:
            bench.apply(PODS)
            await create_certificate(bench.client(), make_csr(identity("web")))
            await refusal(bench, make_csr(identity("web", "other.example")), node="n2")

    caplog.set_level("INFO", "ambient.control.certificates")
    asyncio.run(scenario())
    assert f"n1/ztunnel got a certificate for {identity('web')}" in caplog.text
    assert "refused n2/ztunnel (127.0.0.1:" in caplog.text
    assert "BEGIN" not in caplog.text


def test_a_hundred_requests_at_once_are_all_answered(tmp_path: Path) -> None:
    async def scenario() -> None:
        async with ControlBench(tmp_path) as bench:
            bench.apply(PODS)
            settings = bench.client()
            csrs = [make_csr(identity("web")) for _ in range(100)]
            chains = await asyncio.gather(*(create_certificate(settings, csr) for csr in csrs))
            assert len({chain[0] for chain in chains}) == 100

    asyncio.run(scenario())
