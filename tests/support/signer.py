"""A signer of the cluster, as cert-manager or a controller of somebody's own would be: signs what was approved."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ambient.kube.api.client import ApiClient
from ambient.kube.resource import Resource

REQUESTS = Resource("certificates.k8s.io/v1", "certificatesigningrequests", namespaced=False)


class Signer:
    """An intermediate with its key: (certificate, key) as PEM."""

    def __init__(self, pair: tuple[bytes, bytes], now: datetime | None = None) -> None:
        self.pem = pair[0]
        self._certificate = x509.load_pem_x509_certificate(pair[0])
        key = serialization.load_pem_private_key(pair[1], None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        self._key = key
        self._now = now

    def leaf(
        self,
        key: Any,
        names: Sequence[x509.GeneralName],
        life: timedelta = timedelta(hours=1),
        change: Callable[[x509.CertificateBuilder], x509.CertificateBuilder] = lambda builder: builder,
    ) -> bytes:
        now = self._now or datetime.now(UTC)
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([]))
            .issuer_name(self._certificate.subject)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=1))
            .not_valid_after(now + life)
        )
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=True)
        return change(builder).sign(self._key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)

    def answer(self, request: Mapping[str, Any]) -> str:
        """status.certificate for a CertificateSigningRequest: what it asks for."""
        spec = request["spec"]
        csr = x509.load_pem_x509_csr(base64.b64decode(spec["request"]))
        names = list(csr.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
        made = self.leaf(csr.public_key(), names, timedelta(seconds=spec["expirationSeconds"]))
        return base64.b64encode(made + self.pem).decode()


async def sign_approved(api: ApiClient, signer: Signer, name: str, seen: list[Mapping[str, Any]] | None = None) -> None:
    """The controller of signer `name`: every approved request gets its certificate. For ever."""
    while True:
        for request in (await api.list(REQUESTS))["items"]:
            status = request.get("status") or {}
            approved = any(one["type"] == "Approved" for one in status.get("conditions") or ())
            if request["spec"]["signerName"] != name or not approved or status.get("certificate"):
                continue
            if seen is not None:
                seen.append(request)
            answer = {**request, "status": {**status, "certificate": signer.answer(request)}}
            await api.replace(REQUESTS, request["metadata"]["name"], answer, subresource="status")
        await asyncio.sleep(0.01)
