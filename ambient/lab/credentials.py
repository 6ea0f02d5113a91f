"""The secrets of a lab, made once by `up`: the CA's root, the key that signs node tokens, and the tokens.

Files are readable by root only and vanish with the lab's folder. Keys are ECDSA P-256.
"""

from __future__ import annotations

import time
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ambient.ca.roots import make_root
from ambient.ca.token import Caller, issue_token
from ambient.kube.objects import Pod
from ambient.lab.settings import write_atomically

ISSUER: Final = "ambient-lab"
_YEAR_S: Final = 365 * 86400
_OLDER: Final = timedelta(days=2)
"""How old the root and the tokens seem to be: a mesh whose clock is put back an hour finds them valid still."""


def _pem(key: ec.EllipticCurvePrivateKey) -> str:
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    return key.private_bytes(encoding, form, serialization.NoEncryption()).decode()


def make_ca(folder: Path, organization: str = "cluster.local") -> None:
    """root-cert.pem and root-key.pem, unless they are there already."""
    if (folder / "root-cert.pem").exists():
        return
    certificate, key = make_root(datetime.now(UTC) - _OLDER, organization)
    write_atomically(folder / "root-key.pem", key, 0o600)
    write_atomically(folder / "root-cert.pem", certificate)


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
    return _token(folder, Caller(node, "ambient-system", account, str(uuid.uuid4())))


def pod_token(folder: Path, pod: Pod) -> str:
    """A year's JWT for a pod's own service account."""
    return _token(folder, Caller(pod.node_name, pod.namespace, pod.service_account, pod.uid))


def _token(folder: Path, caller: Caller) -> str:
    issued = time.time() - _OLDER.total_seconds()
    return issue_token((folder / "token-key.pem").read_text(), caller, issued, _YEAR_S, issuer=ISSUER)
