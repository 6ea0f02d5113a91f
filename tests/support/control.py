"""A whole control plane in this process on loopback, with its secrets and clients, for tests."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

import grpc.aio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ambient.ca.roots import make_root
from ambient.ca.token import Caller, issue_token
from ambient.control.server import ControlPlane
from ambient.control.settings import read_control_settings
from ambient.kube.folder import ObjectFolder
from ambient.kube.yaml import parse_documents
from ambient.xds.channel import ServerSettings, call_metadata, open_channel
from ambient.xds.client import Batch
from ambient.xds.codec import Record, name_of
from ambient.xds.messages import ztunnel_node
from ambient.xds.subscribe import StreamState, subscribe
from ambient.xds.wire import message

ISSUER = "ambient-lab"
CREATE_CERTIFICATE = "/istio.v1.auth.IstioCertificateService/CreateCertificate"


def pem_of(key: ec.EllipticCurvePrivateKey) -> str:
    form = serialization.PrivateFormat.PKCS8
    return key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()


def public_pem(key: ec.EllipticCurvePrivateKey) -> str:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(serialization.Encoding.PEM, form).decode()


def make_csr(identity: str, *, key: ec.EllipticCurvePrivateKey | None = None) -> str:
    key = key or ec.generate_private_key(ec.SECP256R1())
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(identity)])
    builder = x509.CertificateSigningRequestBuilder(subject_name=x509.Name([])).add_extension(names, critical=True)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


class ControlBench:
    """`async with ControlBench(tmp_path) as bench`: serves `bench.folder`; ports are chosen by the kernel."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.root = folder
        self.port = 0
        self.ca = folder / "ca"
        self.ca.mkdir()
        certificate, key = make_root(datetime.now(UTC))
        (self.ca / "root-cert.pem").write_text(certificate)
        (self.ca / "root-key.pem").write_text(key)
        self.token_key = ec.generate_private_key(ec.SECP256R1())
        (folder / "token-public.pem").write_text(public_pem(self.token_key))
        self.folder = ObjectFolder(folder / "objects")
        self.folder.put([])
        self.environment = {
            "AMBIENT_OBJECTS": str(folder / "objects"),
            "AMBIENT_CA_DIR": str(self.ca),
            "AMBIENT_TOKEN_KEY": str(folder / "token-public.pem"),
            "AMBIENT_XDS_LISTEN": "127.0.0.1:15012",
            "AMBIENT_HTTP_LISTEN": "127.0.0.1:15014",
            **environment,
        }

    async def __aenter__(self) -> ControlBench:
        """Entered again it comes back on the port it had."""
        settings = read_control_settings(self.environment)
        listen = replace(settings.xds_listen, port=self.port)
        self.plane = ControlPlane(
            replace(settings, xds_listen=listen, http_listen=replace(listen, port=0)), self.environment
        )
        await self.plane.start()
        self.port = self.plane.xds_port
        self.running = asyncio.create_task(self.plane.run())
        await until(lambda: self.plane.reconciler.observed >= 0 or self.running.done())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.running.cancel()
        await asyncio.gather(self.running, return_exceptions=True)
        await self.plane.stop()

    def token(self, node: str = "n1", account: str = "ztunnel", lifetime_s: float = 600.0) -> str:
        caller = Caller(node, "ambient-system", account, "uid")
        return issue_token(pem_of(self.token_key), caller, time.time(), lifetime_s, issuer=ISSUER)

    def client(self, node: str = "n1", account: str = "ztunnel", token: str | None = None) -> ServerSettings:
        file = self.root / f"{node}-{account}.token"
        file.write_text(self.token(node, account) if token is None else token)
        return ServerSettings(
            target=f"127.0.0.1:{self.port}",
            root=self.ca / "root-cert.pem",
            token=file,
            hostname="istiod.istio-system.svc",
        )

    def new_root(self) -> None:
        """Rotate: a new root signs, the old one stays trusted."""
        certificate, key = make_root(datetime.now(UTC))
        (self.ca / "root-cert.pem").write_text(certificate + (self.ca / "root-cert.pem").read_text())
        (self.ca / "root-key.pem").write_text(key)

    def apply(self, text: str) -> int:
        return self.folder.put(parse_documents(text, "test"))

    async def get(self, path: str) -> tuple[int, bytes]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.plane.http_port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        head, _, body = answer.partition(b"\r\n\r\n")
        return int(head.split(b" ")[1]), body


def kubeconfig(folder: Path, url: str) -> str:
    """A kubeconfig for a server that asks for nothing; gives its path."""
    path = folder / "kubeconfig"
    cluster, context = {"server": url}, {"cluster": "c", "user": "u"}
    content = {
        "clusters": [{"name": "c", "cluster": cluster}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [{"name": "x", "context": context}],
        "current-context": "x",
    }
    path.write_text(json.dumps(content))
    return str(path)


class Subscriber:
    """A subscription in a task, with its view of the mesh: `async with Subscriber(bench.client("n1"))`."""

    def __init__(self, settings: ServerSettings, **options: Any) -> None:
        assert settings.token is not None
        self.settings = settings
        self.node = ztunnel_node(settings.token.name.partition("-")[0])
        self.view: dict[str, Record] = {}
        self.states: list[StreamState] = []
        self.batches: list[Batch] = []
        self.options = options

    async def __aenter__(self) -> Subscriber:
        self.task = asyncio.create_task(
            subscribe(self.settings, self.node, self._take, self.states.append, **self.options)
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    def _take(self, batch: Batch) -> None:
        self.batches.append(batch)
        for _, name in batch.gone:
            self.view.pop(name, None)
        self.view.update((name_of(record), record) for record in batch.put)

    async def synced(self) -> None:
        await until(lambda: any(state.state == "synced" for state in self.states))


async def until(condition: Callable[[], object], timeout_s: float = 30.0) -> None:
    """Wait for a condition; raises TimeoutError."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.002)


async def create_certificate(settings: ServerSettings, csr: str, identity: str = "", ttl_s: int = 0) -> Sequence[str]:
    """One call to the CA; raises grpc.aio.AioRpcError."""
    request = message("istio.v1.auth.IstioCertificateRequest")(csr=csr, validity_duration=ttl_s)
    if identity:
        request.metadata.update({"ImpersonatedIdentity": identity})
    answer = await raw_certificate(settings, request.SerializeToString())
    return tuple(message("istio.v1.auth.IstioCertificateResponse").FromString(answer).cert_chain)


async def raw_certificate(
    settings: ServerSettings, data: bytes, metadata: Sequence[tuple[str, str]] | None = None
) -> bytes:
    channel = open_channel(settings)
    try:
        call = channel.unary_unary(CREATE_CERTIFICATE, request_serializer=None, response_deserializer=None)
        given = call_metadata(settings) if metadata is None else metadata
        answer = await call(data, metadata=grpc.aio.Metadata(*given), timeout=10)
        return bytes(answer)
    finally:
        await channel.close(None)
