"""One certificate: a fresh key, the request for it, and the checks on what the CA answers (interop 3.2, 3.3).

Pure but for the random key; knows no network and no file.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from ambient.errors import InvalidInput

CLOCK_SKEW_S: Final = 60.0
"""How far in the future a certificate may begin: the CA's clock is not ours."""


@dataclass(frozen=True, slots=True)
class Issued:
    """`secret`: PEM of key, leaf, intermediates. `roots`: PEM of every trusted root. Times in Unix seconds."""

    identity: str
    secret: bytes
    roots: str
    not_before: float
    not_after: float


class KeyRequest:
    """A new P-256 key with its CSR: empty subject, one critical URI SAN. Raises InvalidInput for an identity that no
    certificate can name."""

    def __init__(self, identity: str) -> None:
        self.identity = identity
        self._key = ec.generate_private_key(ec.SECP256R1())
        try:
            san = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(identity)])
        except ValueError as error:
            raise InvalidInput("no certificate can be asked for", repr(identity), str(error)) from None
        builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).add_extension(san, critical=True)
        self.csr_pem = builder.sign(self._key, hashes.SHA256()).public_bytes(Encoding.PEM).decode()

    def accept(self, chain: Sequence[str], now: float) -> Issued:
        """Check the CA's answer: leaf, intermediates, last element = root bundle.

        Raises InvalidInput when it is short, unreadable, for another identity or key, or not valid now.
        """
        if len(chain) < 2:
            raise InvalidInput("certificate refused", self.identity, f"{len(chain)} elements, expected leaf and roots")
        leaf, *intermediates = [_bundle(part, self.identity) for part in chain[:-1]]
        roots = _bundle(chain[-1], self.identity)
        if len(leaf) != 1:
            raise InvalidInput("certificate refused", self.identity, "the first element is not one certificate")
        found = spiffe_names(leaf[0])
        if found != [self.identity]:
            raise InvalidInput("certificate refused", self.identity, f"it names {', '.join(found) or 'nobody'}")
        spki = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        if leaf[0].public_key().public_bytes(*spki) != self._key.public_key().public_bytes(*spki):
            raise InvalidInput("certificate refused", self.identity, "it is for another key")
        begin, end = leaf[0].not_valid_before_utc.timestamp(), leaf[0].not_valid_after_utc.timestamp()
        if end <= now or begin > now + CLOCK_SKEW_S:
            raise InvalidInput("certificate refused", self.identity, f"valid {rfc3339(begin)} to {rfc3339(end)} only")
        certificates = [leaf[0], *(one for group in intermediates for one in group)]
        key = self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        secret = key + b"".join(one.public_bytes(Encoding.PEM) for one in certificates)
        text = "".join(root.public_bytes(Encoding.PEM).decode() for root in roots)
        return Issued(self.identity, secret, text, begin, end)


def spiffe_names(certificate: x509.Certificate) -> list[str]:
    """URI SANs of a certificate, in order."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return []
    return names.get_values_for_type(x509.UniformResourceIdentifier)


def validity(secret: bytes, identity: str) -> tuple[float, float]:
    """Begin and end (Unix seconds) of the leaf in a secret that came out of custody.

    Raises InvalidInput when it cannot be read, has no key, or is for another identity.
    """
    leaf = _bundle(public_part(secret).decode(errors="replace"), identity)[0]
    if spiffe_names(leaf) != [identity] or b"PRIVATE KEY" not in secret:
        raise InvalidInput("kept certificate refused", identity, "it is for somebody else or has no key")
    return leaf.not_valid_before_utc.timestamp(), leaf.not_valid_after_utc.timestamp()


def first_to_end(chain: str) -> tuple[float, str]:
    """When (Unix seconds) the first of a chain (PEM, leaf first) ends, and which it is; "" if it is the leaf."""
    leaf, *others = _bundle(chain, "chain")
    first = min((leaf, *others), key=lambda one: one.not_valid_after_utc)
    return first.not_valid_after_utc.timestamp(), "" if first is leaf else _name(first)


def public_part(secret: bytes) -> bytes:
    """The certificates of a secret, without the key."""
    start = secret.find(b"-----BEGIN CERTIFICATE-----")
    return secret[start:] if start >= 0 else b""


def authorities(chain: str, roots: str) -> list[x509.Certificate]:
    """The certificates of a chain (PEM, leaf first) and its roots (PEM) that can have issued others."""
    return [*_bundle(chain, "chain")[1:], *_bundle(roots, "roots")]


def describe(pem: str) -> list[dict[str, str]]:
    """Certificates as the config dump shows them: base64 of the PEM, decimal serial number, RFC 3339 times."""
    rows = []
    for one in _bundle(pem, "config dump") if pem else []:
        rows.append(
            {
                "expirationTime": rfc3339(one.not_valid_after_utc.timestamp()),
                "pem": base64.b64encode(one.public_bytes(Encoding.PEM)).decode(),
                "serialNumber": str(one.serial_number),
                "validFrom": rfc3339(one.not_valid_before_utc.timestamp()),
            }
        )
    return rows


def rfc3339(unix: float) -> str:
    """UTC with whole seconds and a Z."""
    return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _name(certificate: x509.Certificate) -> str:
    try:
        return certificate.subject.rfc4514_string() or f"number {certificate.serial_number}"
    except ValueError:
        # Names are read only here, and nothing else minds what is in them.
        return f"number {certificate.serial_number}"


def _bundle(pem: str, identity: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(pem.encode())
    except ValueError as error:
        raise InvalidInput("certificate refused", identity, f"unreadable PEM: {error}") from None
