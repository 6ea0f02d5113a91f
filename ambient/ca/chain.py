"""A certificate that somebody else signed for us: read, and believed only where it is what was asked for. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from ambient.ca.roots import issued_by
from ambient.errors import InvalidInput


@dataclass(frozen=True, slots=True)
class SignedChain:
    """`chain`: PEM of the leaf and what leads to a root, without the root."""

    chain: tuple[str, ...]
    serial: int
    not_before: datetime
    not_after: datetime


def read_chain(pem: bytes, roots: str, key: object, names: Sequence[x509.GeneralName], now: datetime) -> SignedChain:
    """The chain in `pem` (leaf first; roots among it are left out).

    Raises InvalidInput unless the leaf is for this key and exactly these names, is valid now, is no authority, and
    leads to one of `roots` (PEM).
    """
    try:
        found = x509.load_pem_x509_certificates(pem)
        trusted = x509.load_pem_x509_certificates(roots.encode())
    except ValueError as error:
        raise _refused(f"unreadable PEM: {error}") from None
    leaf, *rest = found
    chain = [leaf, *(one for one in rest if one not in trusted)]
    if _public(leaf.public_key()) != _public(key):
        raise _refused("it is for another key")
    if sorted(map(repr, _names(leaf))) != sorted(map(repr, names)):
        raise _refused(f"it names {', '.join(str(name.value) for name in _names(leaf)) or 'nobody'}")
    if _is_authority(leaf):
        raise _refused("it is a certificate of an authority")
    if not leaf.not_valid_before_utc <= now < leaf.not_valid_after_utc:
        raise _refused(f"it is valid from {leaf.not_valid_before_utc} to {leaf.not_valid_after_utc} only")
    for child, parent in pairwise(chain):
        if not issued_by(child, parent):
            raise _refused("its chain is not in order")
    if not any(issued_by(chain[-1], root) for root in trusted):
        raise _refused("it leads to no root that is trusted")
    texts = tuple(one.public_bytes(Encoding.PEM).decode() for one in chain)
    end = min(one.not_valid_after_utc for one in chain)
    return SignedChain(texts, leaf.serial_number, leaf.not_valid_before_utc, end)


def _names(certificate: x509.Certificate) -> list[x509.GeneralName]:
    try:
        return list(certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value)
    except x509.ExtensionNotFound:
        return []


def _is_authority(certificate: x509.Certificate) -> bool:
    try:
        return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except x509.ExtensionNotFound:
        return False


def _public(key: object) -> bytes:
    form = PublicFormat.SubjectPublicKeyInfo
    return key.public_bytes(Encoding.DER, form) if hasattr(key, "public_bytes") else b""


def _refused(why: str) -> InvalidInput:
    return InvalidInput("certificate of the external signer", why=why)
