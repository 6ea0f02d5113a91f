"""Certificates and keys as PEM that people write: read, judged, and written anew as Envoy can take them. Pure.

Raises Unusable whatever the parser does: a certificate is its owner's trouble and nobody else's.
"""

from __future__ import annotations

import re
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)
from cryptography.x509.oid import ExtensionOID, NameOID

from ambient.kube.secrets import AUTHORITY, CERTIFICATE, KEY

_CURVES: Final = ("secp256r1", "secp384r1", "secp521r1")
_SMALLEST_RSA: Final = 2048
_LARGEST_RSA: Final = 8192
_LARGEST_EXPONENT: Final = 33
"""Bits of the public exponent of an RSA key that BoringSSL takes."""
_MUST_STAPLE: Final = x509.TLSFeature([x509.TLSFeatureType.status_request])
_PUBLIC: Final = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
_TITLE: Final = NameOID.COMMON_NAME
_REVOKED: Final = "-----BEGIN X509 CRL-----"
_LIST: Final = re.compile(f"{_REVOKED}[^-]*-----END X509 CRL-----")


class Unusable(Exception):
    """Why, without a word of what it is about."""


def pair(chain: str, key: str, *, serving: bool) -> tuple[str, str]:
    """A certificate, with those that vouch for it, and its key. `serving`: it is shown to clients, not to servers."""
    try:
        found = x509.load_pem_x509_certificates(chain.encode())
        # To prove the primes of a long RSA key takes seconds; whether it is the right one is tried below.
        private = load_pem_private_key(key.encode(), None, unsafe_skip_rsa_key_validation=True)
        public = found[0].public_key().public_bytes(*_PUBLIC)
    except Exception:
        # Beside ValueError: TypeError, UnsupportedAlgorithm, InvalidVersion, and whatever the next parser thinks of.
        raise Unusable(f"{CERTIFICATE} and {KEY} are not a certificate and its key in PEM") from None
    if isinstance(private, rsa.RSAPrivateKey):
        if private.key_size < _SMALLEST_RSA:
            raise Unusable(f"{KEY}: RSA keys need at least {_SMALLEST_RSA} bits")
        if private.key_size > _LARGEST_RSA:
            raise Unusable(f"{KEY}: RSA keys have at most {_LARGEST_RSA} bits")
        if private.public_key().public_numbers().e.bit_length() > _LARGEST_EXPONENT:
            raise Unusable(f"{KEY}: RSA keys have a public exponent of at most {_LARGEST_EXPONENT} bits")
    elif not isinstance(private, ec.EllipticCurvePrivateKey) or private.curve.name not in _CURVES:
        raise Unusable(f"{KEY}: neither RSA nor one of the curves {', '.join(_CURVES)}")
    if public != private.public_key().public_bytes(*_PUBLIC) or not _signs(private):
        raise Unusable(f"{KEY} is not the key of the first certificate of {CERTIFICATE}")
    if why := _complaint(found[0], private, serving=serving):
        raise Unusable(f"{CERTIFICATE}: {why}")
    return _written(found), private.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


def _signs(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey) -> bool:
    """What it signs its public half takes for signed."""
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return True  # read as a point of its curve, and compared
    words, how = b"ours?", (padding.PKCS1v15(), hashes.SHA256())
    try:
        key.public_key().verify(key.sign(words, *how), words, *how)
    except Exception:
        return False
    return True


def authorities(text: str) -> str:
    """Who vouches, and the lists of what they have revoked: a list that cannot be read is not left out."""
    lists = _LIST.findall(text)
    try:
        revoked = [x509.load_pem_x509_crl(one.encode()) for one in lists]
        made = _written(x509.load_pem_x509_certificates(text.encode()))
        made += "".join(one.public_bytes(Encoding.PEM).decode() for one in revoked)
    except Exception:
        raise Unusable(f"{AUTHORITY} is no certificate in PEM") from None
    if len(lists) != text.count(_REVOKED):
        raise Unusable(f"{AUTHORITY} has a list of revoked certificates that cannot be read")
    return made


def _complaint(leaf: x509.Certificate, key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, *, serving: bool) -> str:
    """Why Envoy does not take a certificate, "" when it does."""
    try:
        extensions = {one.oid: one.value for one in leaf.extensions}
        named = ExtensionOID.SUBJECT_ALTERNATIVE_NAME in extensions or leaf.subject.get_attributes_for_oid(_TITLE)
    except Exception:
        # Envoy looks at few of them: whether at one that cannot be read here is for it to say.
        return ""
    usage = extensions.get(ExtensionOID.KEY_USAGE)
    signs = not isinstance(usage, x509.KeyUsage) or usage.digital_signature
    if not signs and isinstance(key, ec.EllipticCurvePrivateKey):
        return "its key usage has no digitalSignature, without which a key of this kind is good for nothing in TLS"
    if serving and extensions.get(ExtensionOID.TLS_FEATURE) == _MUST_STAPLE:
        return "asks for an OCSP response with it (must-staple), and none is sent"
    if serving and not named:
        return "has neither a common name nor any alternative one"
    return ""


def _written(certificates: list[x509.Certificate]) -> str:
    return "".join(one.public_bytes(Encoding.PEM).decode() for one in certificates)
