"""The secrets of a lab, made once by `up`: the CA's root, the key that signs node tokens, and the tokens.

Files are readable by root only and vanish with the lab's folder. Keys are ECDSA P-256.
"""

from __future__ import annotations

import time
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

import jwt
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from ambient.lab.settings import write_atomically

ISSUER: Final = "ambient-lab"
AUDIENCE: Final = "istio-ca"
_YEAR_S: Final = 365 * 86400


def _pem(key: ec.EllipticCurvePrivateKey) -> str:
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, form, serialization.NoEncryption()).decode()


def make_root(folder: Path, organization: str = "cluster.local") -> None:
    """root-cert.pem and root-key.pem, unless they are there already."""
    if (folder / "root-cert.pem").exists():
        return
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, organization)])
    now = datetime.now(UTC)
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
        # A root is older than the mesh under it: a clock that is put back an hour finds it valid still.
        .not_valid_before(now - timedelta(days=2))
        .not_valid_after(now + timedelta(days=3650))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    write_atomically(folder / "root-key.pem", _pem(key), 0o600)
    write_atomically(folder / "root-cert.pem", certificate.public_bytes(serialization.Encoding.PEM).decode())


def make_token_key(folder: Path) -> None:
    """token-key.pem (private) and token-public.pem, unless they are there already."""
    if (folder / "token-public.pem").exists():
        return
    key = ec.generate_private_key(ec.SECP256R1())
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    write_atomically(folder / "token-key.pem", _pem(key), 0o600)
    write_atomically(folder / "token-public.pem", public.decode())


def node_token(folder: Path, node: str, account: str) -> str:
    """A year's JWT for the agent or ztunnel (`account`) of a node; `folder` holds token-key.pem."""
    now = int(time.time())
    claims = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": f"system:serviceaccount:ambient-system:{account}",
        "node": node,
        "pod_uid": str(uuid.uuid4()),
        "iat": now,
        "exp": now + _YEAR_S,
    }
    return jwt.encode(claims, (folder / "token-key.pem").read_text(), algorithm="ES256")
