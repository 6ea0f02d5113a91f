"""Certificates from a signer of the cluster, by the Kubernetes CertificateSigningRequest API.

We make the request, approve it (which is ours to do: we found the caller entitled), wait for whoever signs under that
signer name, check what he made, and take the request away again.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ambient.ca.chain import SignedChain, read_chain
from ambient.ca.csr import SigningRequest
from ambient.ca.issue import Issued
from ambient.control.issuers import Serving
from ambient.errors import InvalidInput, MeshError, Refused, Unavailable
from ambient.kube.api.failure import Conflict, NotThere
from ambient.kube.resource import Resource
from ambient.model.address import IpAddress

REQUESTS: Final = Resource("certificates.k8s.io/v1", "certificatesigningrequests", namespaced=False)
SHORTEST: Final = timedelta(minutes=10)
"""What the API takes as the least spec.expirationSeconds."""
_USAGES: Final = ("digital signature", "key encipherment", "client auth", "server auth")
_MANAGED: Final = "ambient.mesh/requested-by"

_log = logging.getLogger("ambient.control.signer")


class KubernetesSigner:
    """An `Issuer`. `signer` is spec.signerName; `domain` allows callers to name another one below it."""

    def __init__(
        self,
        api: Any,
        signer: str,
        roots: Callable[[], str],
        *,
        default: timedelta,
        longest: timedelta,
        domain: str = "",
        approve: bool = True,
        timeout_s: float = 20.0,
        look_s: float = 0.25,
    ) -> None:
        """`roots`: PEM of what the signer's certificates lead to. `approve`: False where somebody else approves."""
        self._api = api
        self._signer = signer
        self._roots = roots
        self._default, self._longest = default, longest
        self._domain = domain
        self._approve = approve
        self._timeout_s = timeout_s
        self._look_s = look_s

    @property
    def roots(self) -> str:
        return self._roots()

    async def issue(self, request: SigningRequest, csr: str, wanted: timedelta | None, signer: str = "") -> Issued:
        life = self._default if wanted is None or wanted <= timedelta(0) else min(wanted, self._longest)
        names = [x509.UniformResourceIdentifier(str(request.identity))]
        roots = self._roots()
        signed = await self._signed(csr.encode(), self._named(signer), life, request.key, names, roots)
        return Issued((*signed.chain, roots), signed.serial, signed.not_after)

    async def serving(self, names: Sequence[str], addresses: Sequence[IpAddress], life: timedelta) -> Serving:
        key = ec.generate_private_key(ec.SECP256R1())
        general = [*(x509.DNSName(name) for name in names), *(x509.IPAddress(address) for address in addresses)]
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, names[0][:64])]) if names else x509.Name([])
        builder = x509.CertificateSigningRequestBuilder(subject_name=subject)
        builder = builder.add_extension(x509.SubjectAlternativeName(general), critical=False)
        csr = builder.sign(key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)
        signed = await self._signed(csr, self._signer, life, key.public_key(), general, self._roots())
        form = serialization.PrivateFormat.PKCS8
        pem = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()
        return Serving("".join(signed.chain), pem, signed.serial, signed.not_before, signed.not_after)

    def _named(self, asked: str) -> str:
        if not asked:
            return self._signer
        if not self._domain:
            raise InvalidInput("certificate request", "CertSigner", "signers cannot be chosen here: no domain is set")
        if "/" in asked or len(asked) > 250:
            raise InvalidInput("certificate request", "CertSigner", "is not the name of a signer")
        return f"{self._domain}/{asked}"

    async def _signed(
        self,
        csr: bytes,
        signer: str,
        life: timedelta,
        key: object,
        names: Sequence[x509.GeneralName],
        roots: str,
    ) -> SignedChain:
        name = f"ambient-{secrets.token_hex(8)}"
        try:
            async with asyncio.timeout(self._timeout_s):
                made = await self._api.create(REQUESTS, _body(name, csr, signer, life))
                if self._approve:
                    await self._approved(made)
                pem = await self._certificate(name, signer)
            return read_chain(pem, roots, key, names, datetime.now(UTC))
        except TimeoutError:
            why = f"no certificate within {self._timeout_s:g} s" + ("" if self._approve else ", or nobody approved")
            raise Unavailable("signer", signer, why) from None
        except Unavailable:
            raise
        except (InvalidInput, Refused) as error:
            # Whoever asked us did nothing wrong.
            raise Unavailable("signer", signer, str(error)) from None
        finally:
            await asyncio.shield(self._take_away(name))

    async def _approved(self, made: dict[str, Any]) -> None:
        """Say that the request is good, unless somebody was faster."""
        name = made["metadata"]["name"]
        while not any(one.get("type") == "Approved" for one in (made.get("status") or {}).get("conditions") or ()):
            try:
                await self._api.replace(REQUESTS, name, _approval(made), subresource="approval")
            except Conflict:
                made = await self._api.get(REQUESTS, name)
            else:
                return

    async def _certificate(self, name: str, signer: str) -> bytes:
        while True:
            found = await self._api.get(REQUESTS, name)
            status = found.get("status") or {}
            for condition in status.get("conditions") or ():
                if condition.get("type") in ("Denied", "Failed"):
                    why = f"{condition['type']}: {condition.get('reason', '')} {condition.get('message', '')}".strip()
                    raise Unavailable("signer", signer, why)
            if status.get("certificate"):
                try:
                    return base64.b64decode(status["certificate"], validate=True)
                except (binascii.Error, ValueError):
                    raise Unavailable("signer", signer, "its certificate is not base64") from None
            await asyncio.sleep(self._look_s)

    async def _take_away(self, name: str) -> None:
        try:
            await self._api.delete(REQUESTS, name)
        except NotThere:
            pass
        except MeshError as error:
            _log.warning("certificate request %s is left behind: %s", name, error)


def _body(name: str, csr: bytes, signer: str, life: timedelta) -> dict[str, Any]:
    return {
        "apiVersion": REQUESTS.group_version,
        "kind": "CertificateSigningRequest",
        "metadata": {"name": name, "labels": {_MANAGED: "ambient-control"}},
        "spec": {
            "request": base64.b64encode(csr).decode(),
            "signerName": signer,
            "usages": list(_USAGES),
            "expirationSeconds": int(max(life, SHORTEST).total_seconds()),
        },
    }


def _approval(made: Mapping[str, Any]) -> dict[str, Any]:
    condition = {
        "type": "Approved",
        "status": "True",
        "reason": "EntitledCaller",
        "message": "The control plane of the mesh found the caller entitled to this identity.",
    }
    before = (made.get("status") or {}).get("conditions") or []
    return {**made, "status": {**(made.get("status") or {}), "conditions": [*before, condition]}}
