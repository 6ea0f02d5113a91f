"""A client of a lab's control plane that sends whatever bytes it likes, with whatever token."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ambient.lab.names import NETNS_DIR
from ambient.xds.wire import message
from tests.support.crossing import crossing
from tests.support.lab import LabUnderTest

DELTA = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
SIGN = "/istio.v1.auth.IstioCertificateService/CreateCertificate"
SERVER_NAME = "istiod.istio-system.svc"
Metadata = Sequence[tuple[str, str]]


@dataclass
class Caller:
    channel: grpc.Channel
    folder: Path

    @property
    def key(self) -> str:
        """The lab's private token key."""
        return (self.folder / "token-key.pem").read_text()

    def claims(self, node: str = "n1", account: str = "ztunnel", **changes: object) -> dict[str, object]:
        """What a good token says, with changes; None takes a claim away."""
        now = int(time.time())
        subject = f"system:serviceaccount:ambient-system:{account}"
        good: dict[str, object] = {"iss": "ambient-lab", "aud": "istio-ca", "sub": subject, "node": node}
        good |= {"pod_uid": "u", "iat": now, "exp": now + 600, **changes}
        return {name: value for name, value in good.items() if value is not None}

    def token(self, key: str = "", algorithm: str = "ES256", **changes: Any) -> str:
        return jwt.encode(self.claims(**changes), key or self.key, algorithm=algorithm)

    def bearer(self, **changes: Any) -> Metadata:
        return (("authorization", f"Bearer {self.token(**changes)}"), ("clusterid", "Kubernetes"))

    def sign(self, body: bytes, metadata: Metadata | None = None) -> Any:
        """The answer to a certificate request; raises grpc.RpcError."""
        call = self.channel.unary_unary(SIGN)
        answer = call(body, metadata=self.bearer() if metadata is None else metadata, timeout=60)
        return message("istio.v1.auth.IstioCertificateResponse").FromString(answer)

    def discover(self, *requests: bytes, metadata: Metadata | None = None, method: str = DELTA) -> Any:
        """The first response of a stream on which these requests are sent; raises grpc.RpcError."""
        call = self.channel.stream_stream(method)(
            iter(requests), metadata=self.bearer() if metadata is None else metadata, timeout=60
        )
        try:
            return message("envoy.service.discovery.v3.DeltaDiscoveryResponse").FromString(next(call))
        finally:
            call.cancel()


@contextmanager
def caller(lab: LabUnderTest) -> Iterator[Caller]:
    """TLS to the control plane with the lab's root."""
    address = str(lab.lab.settings.plan.control.v4)
    root = (lab.names.credentials / "root-cert.pem").read_bytes()
    with crossing(NETNS_DIR / lab.names.control, address, 15012) as port:
        options = (("grpc.ssl_target_name_override", SERVER_NAME), ("grpc.enable_retries", 0))
        credentials = grpc.ssl_channel_credentials(root)
        with grpc.secure_channel(f"127.0.0.1:{port}", credentials, options) as channel:
            yield Caller(channel, lab.names.credentials)


def csr(
    *names: x509.GeneralName,
    key: Any = None,
    extensions: Sequence[tuple[x509.ExtensionType, bool]] = (),
    attributes: Sequence[tuple[x509.ObjectIdentifier, bytes]] = (),
) -> str:
    """A certificate request as PEM with these alternative names (none: no such extension)."""
    key = key or ec.generate_private_key(ec.SECP256R1())
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical=critical)
    for oid, value in attributes:
        builder = builder.add_attribute(oid, value)
    return builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM).decode()


def ask_for(identity: str) -> str:
    return csr(x509.UniformResourceIdentifier(identity))
