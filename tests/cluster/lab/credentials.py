"""The cluster's certificates and kubeconfigs: one authority for everybody, one for the front proxy."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.cluster.lab.plan import Plan

_AGE: Final = timedelta(days=3650)
_CLIENTS: Final = {
    "admin": ("system:masters", "admin"),
    "apiserver-kubelet": ("system:masters", "kube-apiserver-kubelet-client"),
    "controller-manager": ("", "system:kube-controller-manager"),
    "scheduler": ("", "system:kube-scheduler"),
    "proxy": ("", "system:kube-proxy"),
}


def make(plan: Plan) -> None:
    """All that the control plane needs, where it is not there yet."""
    folder = plan.credentials
    folder.mkdir(mode=0o700, exist_ok=True)
    if (folder / "done").exists():
        return
    for authority in ("ca", "front-ca"):
        _authority(folder, authority)
    for name, (group, user) in _CLIENTS.items():
        _certificate(folder, name, group, user)
    _certificate(folder, "front", "", "front-proxy-client", authority="front-ca")
    names = ("localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc")
    _certificate(
        folder,
        "apiserver",
        "",
        "kube-apiserver",
        names=(*names, "kubernetes.default.svc.cluster.local"),
        addresses=("127.0.0.1", plan.api_address, plan.first_service),
    )
    accounts = rsa.generate_private_key(65537, 2048)
    _write(folder / "accounts.key", _pem(accounts))
    public = accounts.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    _write(folder / "accounts.pub", public)
    for name in ("admin", "controller-manager", "scheduler", "proxy"):
        target = plan.kubeconfig if name == "admin" else plan.folder / f"{name}.kubeconfig"
        _write(target, kubeconfig(plan, name).encode())
    (folder / "done").touch()


def make_node(plan: Plan, node: int) -> None:
    """A kubelet's certificate, for both directions, and its kubeconfig."""
    name = f"n{node}"
    if not (plan.credentials / f"{name}.crt").exists():
        _certificate(
            plan.credentials,
            name,
            "system:nodes",
            f"system:node:{name}",
            names=(name,),
            addresses=(plan.node_address(node),),
        )
    _write(plan.node_folder(node) / "conf" / "kubelet.kubeconfig", kubeconfig(plan, name).encode())


def kubeconfig(plan: Plan, user: str) -> str:
    """A kubeconfig (JSON is YAML) of one client, with everything inside."""

    def inside(file: str) -> str:
        return base64.b64encode((plan.credentials / file).read_bytes()).decode()

    cluster = {"server": plan.server, "certificate-authority-data": inside("ca.crt")}
    client = {"client-certificate-data": inside(f"{user}.crt"), "client-key-data": inside(f"{user}.key")}
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": plan.name, "cluster": cluster}],
            "users": [{"name": user, "user": client}],
            "contexts": [{"name": plan.name, "context": {"cluster": plan.name, "user": user}}],
            "current-context": plan.name,
        }
    )


def _write(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    path.chmod(0o600)


def _pem(key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )


def _builder(subject: x509.Name, key: ec.EllipticCurvePrivateKey) -> x509.CertificateBuilder:
    now = datetime.now(UTC) - timedelta(hours=1)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + _AGE)
    )


def _usage(*, signing: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=signing,
        crl_sign=signing,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _authority(folder: Path, name: str) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"cluster lab {name}")])
    made = (
        _builder(subject, key)
        .issuer_name(subject)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(_usage(signing=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    _write(folder / f"{name}.key", _pem(key))
    _write(folder / f"{name}.crt", made.public_bytes(serialization.Encoding.PEM))


def _certificate(
    folder: Path,
    name: str,
    group: str,
    user: str,
    *,
    names: Sequence[str] = (),
    addresses: Sequence[str] = (),
    authority: str = "ca",
) -> None:
    """With names or addresses it is a server's as well."""
    signer = serialization.load_pem_private_key((folder / f"{authority}.key").read_bytes(), None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    issuer = x509.load_pem_x509_certificate((folder / f"{authority}.crt").read_bytes())
    key = ec.generate_private_key(ec.SECP256R1())
    organisation = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, group)] if group else []
    subject = x509.Name([*organisation, x509.NameAttribute(NameOID.COMMON_NAME, user)])
    uses = [ExtendedKeyUsageOID.CLIENT_AUTH]
    builder = _builder(subject, key).issuer_name(issuer.subject).add_extension(_usage(signing=False), critical=True)
    if names or addresses:
        uses.append(ExtendedKeyUsageOID.SERVER_AUTH)
        general = [*map(x509.DNSName, names), *(x509.IPAddress(ip_address(given)) for given in addresses)]
        builder = builder.add_extension(x509.SubjectAlternativeName(general), critical=False)
    made = builder.add_extension(x509.ExtendedKeyUsage(uses), critical=False).sign(signer, hashes.SHA256())
    _write(folder / f"{name}.key", _pem(key))
    _write(folder / f"{name}.crt", made.public_bytes(serialization.Encoding.PEM))
