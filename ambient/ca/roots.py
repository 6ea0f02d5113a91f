"""The authority that signs: make a self-signed root, or load one from PEM and refuse what could not work. Pure.

Layouts of a CA folder, by file name:
    root-cert.pem root-key.pem                            the root signs; more certificates in root-cert.pem are further
                                                          trusted roots (rotation: old and new are both distributed)
    ca-cert.pem ca-key.pem [cert-chain.pem] root-cert.pem  an intermediate signs (as Istio's `cacerts` secret)
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import NameOID

from ambient.errors import InvalidInput

SigningKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
ROOT_LIFETIME: Final = timedelta(days=3650)
BACKDATE: Final = timedelta(minutes=2)
ROOT_BACKDATE: Final = timedelta(days=2)
"""A root is older than the mesh under it: a clock that is put back an hour finds it valid still."""
FILES: Final = ("root-cert.pem", "root-key.pem", "ca-cert.pem", "ca-key.pem", "cert-chain.pem")


@dataclass(frozen=True, slots=True)
class Authority:
    """`certificate` and `key` sign. `chain`: PEM of the signer and what leads to a root, empty when a root signs.
    `roots`: PEM of every trusted root, in one text. `not_after`: when the first certificate of the chain ends."""

    certificate: x509.Certificate
    key: SigningKey
    chain: tuple[str, ...]
    roots: str
    not_after: datetime


def make_root(
    now: datetime, organization: str = "cluster.local", lifetime: timedelta = ROOT_LIFETIME
) -> tuple[str, str]:
    """A new self-signed root: (certificate PEM, key PEM). The key must be kept at mode 0600."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization)])
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - ROOT_BACKDATE)
        .not_valid_after(now + lifetime)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    form, encoding = serialization.PrivateFormat.PKCS8, serialization.Encoding.PEM
    return _pem(certificate), key.private_bytes(encoding, form, serialization.NoEncryption()).decode()


def load_authority(files: Mapping[str, bytes], now: datetime) -> Authority:
    """Build the authority from the content of a CA folder (names in `FILES`); raises InvalidInput naming the file.

    A chain in which a certificate may have fewer authorities below it than it has (pathLenConstraint, RFC 5280
    4.2.1.9), or one that may not sign certificates, is refused: nobody would accept what it issues.
    """
    plugged = "ca-key.pem" in files
    signer_file, key_file = ("ca-cert.pem", "ca-key.pem") if plugged else ("root-cert.pem", "root-key.pem")
    key = _load_key(files, key_file)
    roots = _load_certificates(files, "root-cert.pem")
    public = _public_bytes(key.public_key())
    candidates = _load_certificates(files, signer_file)
    signer = next((c for c in candidates if _public_bytes(c.public_key()) == public), None)
    if signer is None:
        raise InvalidInput("certificate authority", signer_file, f"no certificate in it belongs to {key_file}")
    _check_authority(signer, signer_file, now)
    # A further root that has ended is of the past: it must not keep us from starting.
    roots = [root for root in roots if root.not_valid_after_utc > now]
    for root in roots:
        _check_authority(root, "root-cert.pem", now)
    chain: tuple[x509.Certificate, ...] = ()
    if plugged and signer not in roots:
        chain = (signer, *(c for c in _optional_chain(files) if c != signer and c not in roots))
        for one in chain:
            _check_authority(one, "cert-chain.pem", now)
        _check_chain(chain, roots)
    ends = min(c.not_valid_after_utc for c in (signer, *chain))
    return Authority(signer, key, tuple(_pem(c) for c in chain), "".join(_pem(c) for c in roots), ends)


def _optional_chain(files: Mapping[str, bytes]) -> list[x509.Certificate]:
    return _load_certificates(files, "cert-chain.pem") if files.get("cert-chain.pem", b"").strip() else []


def _load_key(files: Mapping[str, bytes], name: str) -> SigningKey:
    try:
        key = serialization.load_pem_private_key(files[name], password=None)
    except KeyError:
        raise InvalidInput("certificate authority", name, "is missing") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # Without the parser's text: it may quote what it could not read.
        raise InvalidInput("certificate authority", name, "is not an unencrypted private key in PEM") from None
    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.key_size >= 256:
        return key
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size >= 2048:
        return key
    raise InvalidInput("certificate authority", name, "must be ECDSA of at least 256 or RSA of at least 2048 bits")


def _load_certificates(files: Mapping[str, bytes], name: str) -> list[x509.Certificate]:
    try:
        return x509.load_pem_x509_certificates(files[name])
    except KeyError:
        raise InvalidInput("certificate authority", name, "is missing") from None
    except ValueError as error:
        raise InvalidInput("certificate authority", name, str(error)) from None


def _check_authority(certificate: x509.Certificate, file: str, now: datetime) -> None:
    subject = certificate.subject.rfc4514_string()
    try:
        constraints = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value
        may_sign = constraints.ca
    except x509.ExtensionNotFound:
        may_sign = False
    if not may_sign:
        raise InvalidInput("certificate authority", file, f"{subject!r} is not a CA certificate")
    try:
        usage = certificate.extensions.get_extension_for_class(x509.KeyUsage).value
    except x509.ExtensionNotFound:
        usage = None
    if usage is not None and not usage.key_cert_sign:
        raise InvalidInput("certificate authority", file, f"{subject!r} may not sign certificates (key usage)")
    if certificate.not_valid_after_utc <= now:
        raise InvalidInput("certificate authority", file, f"{subject!r} ended {certificate.not_valid_after_utc}")


def _check_chain(chain: tuple[x509.Certificate, ...], roots: list[x509.Certificate]) -> None:
    for child, parent in itertools.pairwise(chain):
        if not issued_by(child, parent):
            raise InvalidInput("certificate authority", "cert-chain.pem", "is not in order from the signer to the root")
    above = [root for root in roots if issued_by(chain[-1], root)]
    if not above:
        raise InvalidInput("certificate authority", "cert-chain.pem", "does not lead to a root in root-cert.pem")
    for below, certificate in enumerate((*chain, above[0])):
        allowed = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.path_length
        if allowed is not None and allowed < below:
            subject = certificate.subject.rfc4514_string()
            why = f"{subject!r} allows {allowed} authorities below it, there are {below}"
            raise InvalidInput("certificate authority", "cert-chain.pem", why)


def issued_by(child: x509.Certificate, parent: x509.Certificate) -> bool:
    """Whether `parent` signed `child`, by name and signature."""
    try:
        child.verify_directly_issued_by(parent)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def _public_bytes(key: object) -> bytes:
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_bytes(serialization.Encoding.DER, form) if hasattr(key, "public_bytes") else b""


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()
