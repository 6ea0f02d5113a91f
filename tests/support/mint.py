"""Certificates made with the key of a lab's own authority, or with a stranger's: for peers that are good or forged."""

from __future__ import annotations

import os
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

SPIFFE = "spiffe://cluster.local/ns/{namespace}/sa/{account}"
_USAGES = {"client": ExtendedKeyUsageOID.CLIENT_AUTH, "server": ExtendedKeyUsageOID.SERVER_AUTH}
_PEM = serialization.Encoding.PEM


def spiffe(account: str, namespace: str = "shop") -> str:
    return SPIFFE.format(namespace=namespace, account=account)


@dataclass(frozen=True)
class Leaf:
    """PEM of key, leaf and what stands between leaf and root."""

    key: str
    chain: str

    @property
    def pem(self) -> bytes:
        return (self.key + self.chain).encode()

    def save(self, folder: Path, name: str) -> tuple[Path, Path]:
        """Files with the chain and with the key."""
        chain, key = folder / f"{name}.pem", folder / f"{name}.key"
        chain.write_text(self.chain)
        key.write_text(self.key)
        return chain, key


class Mint:
    """Signs anything. `of(folder)`: with the authority of a lab; `stranger()`: with a key of its own, same names."""

    def __init__(self, certificate: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> None:
        self.certificate = certificate
        self._key = key

    @classmethod
    def of(cls, folder: Path) -> Mint:
        key = serialization.load_pem_private_key((folder / "root-key.pem").read_bytes(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        return cls(x509.load_pem_x509_certificate((folder / "root-cert.pem").read_bytes()), key)

    def stranger(self) -> Mint:
        """An authority that calls itself as this one does."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(self.certificate.subject)
            .issuer_name(self.certificate.subject)
            .public_key(key.public_key())
            .serial_number(self.certificate.serial_number)
            .not_valid_before(now - timedelta(days=1))
            .not_valid_after(now + timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
            .sign(key, hashes.SHA256())
        )
        return Mint(certificate, key)

    @property
    def roots(self) -> str:
        return self.certificate.public_bytes(_PEM).decode()

    def leaf(
        self,
        *uris: str,
        names: Sequence[x509.GeneralName] | None = None,
        begins_s: float = -3600,
        ends_s: float = 3600,
        usages: Sequence[str] = ("client", "server"),
        title: str = "",
    ) -> Leaf:
        """`names` instead of `uris`: any alternative names; empty: none at all. Times count from now.

        `title` is its subject, which is empty otherwise.
        """
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        alternatives = list(names if names is not None else map(x509.UniformResourceIdentifier, uris))
        builder = (
            x509.CertificateBuilder()
            .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, title)] if title else []))
            .issuer_name(self.certificate.subject)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + timedelta(seconds=begins_s))
            .not_valid_after(now + timedelta(seconds=ends_s))
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        )
        if usages:
            builder = builder.add_extension(x509.ExtendedKeyUsage([_USAGES[u] for u in usages]), critical=False)
        if alternatives:
            builder = builder.add_extension(x509.SubjectAlternativeName(alternatives), critical=True)
        signed = builder.sign(self._key, hashes.SHA256())
        private = key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        return Leaf(private.decode(), signed.public_bytes(_PEM).decode())

    def below(self, leaf: Leaf, *uris: str) -> Leaf:
        """A leaf signed with the key of another leaf, which is sent along as if it were an authority."""
        issuer = x509.load_pem_x509_certificate(leaf.chain.encode())
        key = serialization.load_pem_private_key(leaf.key.encode(), None)
        assert isinstance(key, ec.EllipticCurvePrivateKey)
        forged = Mint(issuer, key).leaf(*uris)
        return Leaf(forged.key, forged.chain + leaf.chain)


def client_context(leaf: Leaf | None, *, alpn: Sequence[str] = ("h2",), tls12: bool = False) -> ssl.SSLContext:
    """TLS as a tunnel's client speaks it, trusting any server; `leaf` None: without a certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if tls12:
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    else:
        context.minimum_version = ssl.TLSVersion.TLSv1_3
    if alpn:
        context.set_alpn_protocols(list(alpn))
    if leaf is not None:
        fd = os.memfd_create("leaf", os.MFD_CLOEXEC)
        try:
            os.write(fd, leaf.pem)
            context.load_cert_chain(f"/proc/self/fd/{fd}")
        finally:
            os.close(fd)
    return context
