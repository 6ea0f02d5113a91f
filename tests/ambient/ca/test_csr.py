"""Certificate requests: one identity and nothing else, from a key whose holder signed."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import AttributeOID, NameOID

from ambient.ca.csr import MOST_BYTES, parse_csr
from ambient.errors import InvalidInput
from ambient.model.identity import Identity
from tests.support.control import make_csr

IDENTITY = "spiffe://cluster.local/ns/shop/sa/web"
Builder = x509.CertificateSigningRequestBuilder
Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey


def pem(build: Callable[[Builder], Builder], key: Key | None = None) -> str:
    key = key or ec.generate_private_key(ec.SECP256R1())
    algorithm = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    request = build(Builder(subject_name=x509.Name([]))).sign(key, algorithm)
    return request.public_bytes(serialization.Encoding.PEM).decode()


def san(*names: x509.GeneralName) -> Callable[[Builder], Builder]:
    return lambda builder: builder.add_extension(x509.SubjectAlternativeName(names), critical=True)


def with_identity(extra: Callable[[Builder], Builder]) -> Callable[[Builder], Builder]:
    return lambda builder: extra(san(x509.UniformResourceIdentifier(IDENTITY))(builder))


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()])
def test_a_plain_request_is_read(curve: ec.EllipticCurve) -> None:
    key = ec.generate_private_key(curve)
    request = parse_csr(make_csr(IDENTITY, key=key))
    assert request.identity == Identity("cluster.local", "shop", "web")
    assert request.key.public_numbers() == key.public_key().public_numbers()


def test_a_subject_is_ignored_because_it_never_gets_into_a_certificate() -> None:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "admin")])
    key = ec.generate_private_key(ec.SECP256R1())
    names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(IDENTITY)])
    request = Builder(subject_name=name).add_extension(names, critical=False).sign(key, hashes.SHA256())
    assert str(parse_csr(request.public_bytes(serialization.Encoding.PEM).decode()).identity) == IDENTITY


URI = x509.UniformResourceIdentifier
BAD_REQUESTS: dict[str, Callable[[], str]] = {
    "0 alternative names": lambda: pem(lambda builder: builder),
    "2 alternative names": lambda: pem(san(URI(IDENTITY), URI("spiffe://cluster.local/ns/shop/sa/other"))),
    "2 alternative names ": lambda: pem(san(URI(IDENTITY), x509.DNSName("istiod.istio-system.svc"))),
    "is not a URI": lambda: pem(san(x509.DNSName("web"))),
    "is not a URI ": lambda: pem(san(x509.IPAddress(ip_address("10.0.0.1")))),
    "must start with spiffe": lambda: make_csr("https://cluster.local/ns/shop/sa/web"),
    "expected <trust domain>": lambda: make_csr("spiffe://cluster.local/ns/shop"),
    "expected <trust domain> ": lambda: make_csr(IDENTITY + "/more"),
    "is empty or has odd": lambda: make_csr("spiffe://cluster.local/ns//sa/web"),
    "is empty or has odd ": lambda: make_csr("spiffe://cluster.local/ns/shop/sa/%77eb"),
    "extension 2.5.29.19": lambda: pem(
        with_identity(lambda b: b.add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True))
    ),
    "extension 2.5.29.37": lambda: pem(
        with_identity(lambda b: b.add_extension(x509.ExtendedKeyUsage([x509.OID_CODE_SIGNING]), critical=False))
    ),
    "extension 1.2.3.4": lambda: pem(
        with_identity(
            lambda b: b.add_extension(
                x509.UnrecognizedExtension(x509.ObjectIdentifier("1.2.3.4"), b"x"), critical=False
            )
        )
    ),
    "attributes besides": lambda: pem(
        with_identity(lambda b: b.add_attribute(AttributeOID.CHALLENGE_PASSWORD, b"secret"))
    ),
    "must be ECDSA": lambda: pem(with_identity(lambda b: b), rsa.generate_private_key(65537, 2048)),
    "must be ECDSA ": lambda: pem(with_identity(lambda b: b), ed25519.Ed25519PrivateKey.generate()),
    "must be ECDSA  ": lambda: pem(with_identity(lambda b: b), ec.generate_private_key(ec.SECP256K1())),
    "must be ECDSA   ": lambda: pem(with_identity(lambda b: b), ec.generate_private_key(ec.SECP224R1())),
    "not exactly one PEM": lambda: make_csr(IDENTITY) + make_csr(IDENTITY),
    "not exactly one PEM ": lambda: "",
    "at most": lambda: make_csr(IDENTITY) + " " * MOST_BYTES,
    "certificate request": lambda: make_csr(IDENTITY).replace("M", "\x00"),
    "signature": lambda: swapped_key(),
}


def swapped_key() -> str:
    """A request over somebody else's public key."""
    own = x509.load_pem_x509_csr(make_csr(IDENTITY).encode())
    other = x509.load_pem_x509_csr(make_csr(IDENTITY).encode())

    def point(request: x509.CertificateSigningRequest) -> bytes:
        form = serialization.PublicFormat.UncompressedPoint
        return request.public_key().public_bytes(serialization.Encoding.X962, form)

    der = own.public_bytes(serialization.Encoding.DER).replace(point(own), point(other))
    return x509.load_der_x509_csr(der).public_bytes(serialization.Encoding.PEM).decode()


@pytest.mark.parametrize("reason", BAD_REQUESTS)
def test_a_request_that_asks_for_anything_else_is_refused(reason: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_csr(BAD_REQUESTS[reason]())
    assert reason.strip() in str(caught.value)
