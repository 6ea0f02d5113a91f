"""Make leaf certificates: one SPIFFE identity, or the names of a server of ours. Pure: the clock is an argument."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID

from ambient.ca.csr import SigningRequest
from ambient.ca.roots import BACKDATE, Authority
from ambient.errors import Unavailable
from ambient.model.address import IpAddress

DEFAULT_TTL: Final = timedelta(hours=24)
SHORTEST_TTL: Final = timedelta(seconds=10)
LONGEST_TTL: Final = timedelta(days=90)


@dataclass(frozen=True, slots=True)
class Issued:
    """`chain`: PEM of leaf, intermediates and, as last element, every trusted root."""

    chain: tuple[str, ...]
    serial: int
    not_after: datetime


def issue(
    authority: Authority,
    request: SigningRequest,
    now: datetime,
    wanted: timedelta | None,
    *,
    default: timedelta = DEFAULT_TTL,
    longest: timedelta = LONGEST_TTL,
) -> Issued:
    """A certificate for the identity of a request that was found entitled.

    `wanted` (None or not positive: `default`) is clamped to SHORTEST_TTL..`longest` and never reaches beyond the end of
    the signer. Raises Unavailable when the signer itself is about to end.
    """
    ttl = default if wanted is None or wanted <= timedelta(0) else wanted
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(str(request.identity))])
    usages = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    return _sign(authority, request.key, names, usages, now, min(max(ttl, SHORTEST_TTL), longest))


def issue_server(
    authority: Authority, names: Sequence[str], addresses: Sequence[IpAddress], now: datetime, ttl: timedelta
) -> tuple[Issued, str]:
    """A server certificate for DNS names and addresses with a fresh key; gives it and the key as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    alternatives = [*(x509.DNSName(name) for name in names), *(x509.IPAddress(address) for address in addresses)]
    usages = [ExtendedKeyUsageOID.SERVER_AUTH]
    issued = _sign(authority, key.public_key(), x509.SubjectAlternativeName(alternatives), usages, now, ttl)
    form = serialization.PrivateFormat.PKCS8
    return issued, key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()).decode()


def _sign(
    authority: Authority,
    key: ec.EllipticCurvePublicKey,
    names: x509.SubjectAlternativeName,
    usages: list[x509.ObjectIdentifier],
    now: datetime,
    ttl: timedelta,
) -> Issued:
    end = min(now + ttl, authority.not_after)
    if end < now + SHORTEST_TTL:
        raise Unavailable("certificate", why=f"the authority itself ends {authority.not_after.isoformat()}")
    start = max(now - BACKDATE, authority.certificate.not_valid_before_utc)
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=False,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    serial = x509.random_serial_number()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([]))
        .issuer_name(authority.certificate.subject)
        .public_key(key)
        .serial_number(serial)
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(_key_of_issuer(authority.certificate), critical=False)
        # The subject is empty, so the alternative name is the only name and must be understood (RFC 5280 4.2.1.6).
        .add_extension(names, critical=True)
        .sign(authority.key, hashes.SHA256())
    )
    leaf = certificate.public_bytes(serialization.Encoding.PEM).decode()
    return Issued((leaf, *authority.chain, authority.roots), serial, end)


def _key_of_issuer(issuer: x509.Certificate) -> x509.AuthorityKeyIdentifier:
    try:
        own = issuer.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value
    except x509.ExtensionNotFound:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer.public_key())  # type: ignore[arg-type]
    return x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(own)
