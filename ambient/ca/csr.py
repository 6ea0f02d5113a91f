"""Certificate requests: read, and check that they ask for exactly one SPIFFE identity and nothing else. Pure.

Whatever a request says is a wish of the caller; what goes into a certificate is decided in `issue`. A request that
asks for anything we would have to ignore is refused instead, so that nobody relies on what he did not get.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec

from ambient.errors import InvalidInput
from ambient.model.identity import Identity, parse_identity

MOST_BYTES: Final = 16 * 1024
_EXTENSION_REQUEST: Final = x509.ObjectIdentifier("1.2.840.113549.1.9.14")
_CURVES: Final = (ec.SECP256R1, ec.SECP384R1, ec.SECP521R1)


@dataclass(frozen=True, slots=True)
class SigningRequest:
    """A key that its holder has proven to hold, and the identity that is wanted for it."""

    identity: Identity
    key: ec.EllipticCurvePublicKey


def parse_csr(pem: str) -> SigningRequest:
    """Read one PEM request; raises InvalidInput with the reason."""
    data = pem.encode()
    if len(data) > MOST_BYTES:
        raise _refused(f"{len(data)} bytes, at most {MOST_BYTES}")
    if data.count(b"-----BEGIN") != 1:
        raise _refused("not exactly one PEM block")
    try:
        csr = x509.load_pem_x509_csr(data)
        key = csr.public_key()
        if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, _CURVES):
            raise _refused("the key must be ECDSA on P-256, P-384 or P-521")
        if not csr.is_signature_valid:
            raise _refused("its signature is not made with its key")
        if any(attribute.oid != _EXTENSION_REQUEST for attribute in csr.attributes):
            raise _refused("it has attributes besides extensions")
        extensions = list(csr.extensions)
    except (ValueError, TypeError, UnsupportedAlgorithm, InvalidSignature, x509.DuplicateExtension) as error:
        raise _refused(str(error) or "malformed") from None
    names: x509.SubjectAlternativeName | None = None
    for extension in extensions:
        if not isinstance(extension.value, x509.SubjectAlternativeName):
            raise _refused(f"it asks for extension {extension.oid.dotted_string}")
        names = extension.value
    if names is None or len(names) != 1:
        raise _refused(f"{0 if names is None else len(names)} alternative names instead of one")
    name = next(iter(names))
    if not isinstance(name, x509.UniformResourceIdentifier):
        raise _refused("its alternative name is not a URI")
    return SigningRequest(parse_identity(name.value), key)


def _refused(why: str) -> InvalidInput:
    return InvalidInput("certificate request", why=why)
