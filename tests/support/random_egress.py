"""What people write of servers outside of the mesh, drawn at random: ServiceEntries, TLS that is begun with them, and
certificates, good ones and others."""

from __future__ import annotations

import base64
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Final

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

from tests.support.builders import raw
from tests.support.random_traffic import API, NETWORKING
from tests.support.random_words import Words

CREDENTIALS: Final = ("p256", "p384", "rsa", "ed25519", "small", "odd", "junk", "authority", "nobody")
AUTHORITIES: Final = ("one", "several", "revoking", "junk", "empty", "nobody")
_PROTOCOLS: Final = ("HTTP", "HTTP2", "GRPC", "TCP", "TLS", "HTTPS", "")
_Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
_PEM: Final = serialization.Encoding.PEM


class Egress:
    """Of one ServiceEntry, by its name and a number of its own."""

    def __init__(self, words: Words, name: str, number: int) -> None:
        self._words = words
        self._name = name
        self._number = number

    def entry(self, ports: list[int], address: str) -> dict[str, Any]:
        words = self._words
        resolution = words.one("STATIC", "STATIC", "DNS", "DNS", "DNS_ROUND_ROBIN", "NONE", "DYNAMIC_DNS")
        host = f"{self._name}.example.com"
        listed = [
            {"number": one, "name": f"p{one}", "protocol": words.one(*_PROTOCOLS), "targetPort": words.one(None, 8443)}
            for one in ports
        ]
        spec: dict[str, Any] = {
            "hosts": [f"*.{host}" if resolution == "DYNAMIC_DNS" else host],
            "ports": listed,
            "resolution": resolution,
            "location": words.one("MESH_EXTERNAL", "MESH_EXTERNAL", "MESH_INTERNAL"),
            "subjectAltNames": words.one([], ["spiffe://partner.example.com/api"], [words.text(30)]),
            "addresses": [address],
        }
        if resolution not in ("NONE", "DYNAMIC_DNS") and words.often(0.8):
            spec["endpoints"] = words.several(lambda: self._endpoint(resolution), 1, 1, 3)
        elif resolution == "STATIC":
            spec["workloadSelector"] = {"labels": {"app": words.one("s0", "s1", "nobody")}}
        labels = {"istio.io/use-waypoint": "waypoint"}
        return {**raw("ServiceEntry", self._name, spec, namespace="shop", labels=labels), "apiVersion": NETWORKING}

    def _endpoint(self, resolution: str) -> dict[str, Any]:
        words = self._words
        rng = words.rng
        address = words.one(f"10.9.{rng.randint(0, 255)}.{rng.randint(1, 254)}", f"fd09::{rng.randint(1, 9999):x}")
        name = words.one("api.example.net", "a.b.c.example.net")
        return {
            "address": address if resolution == "STATIC" else words.one(address, name),
            "locality": words.one(None, "r1", "r1/z1", "r2/z1/s1"),
            "weight": words.one(None, 1, 100, 2**32 - 1),
            "labels": {"version": words.one("v1", "v2")},
        }

    def tls(self) -> dict[str, Any]:
        """`tls` of a DestinationRule."""
        words = self._words
        fields: dict[str, Callable[[], Any]] = {
            "credentialName": lambda: words.one(*CREDENTIALS),
            "sni": lambda: words.one("api.example.com", "x" * 255, words.text(30)),
            "subjectAltNames": lambda: words.several(self._name_of_server, 1, 3),
            "insecureSkipVerify": lambda: words.often(0.5),
            "caCertificates": lambda: words.one("system", "/etc/ssl/cert.pem", "/own/file.pem"),
        }
        mode = words.one("SIMPLE", "SIMPLE", "MUTUAL", "MUTUAL", "DISABLE", "ISTIO_MUTUAL")
        return {"mode": mode, **words.some(fields, 0, 3)}

    def _name_of_server(self) -> str:
        words = self._words
        names = ("api.example.com", "*.example.com", "spiffe://partner.example.com/api", "10.9.0.1", "fd09::1")
        return words.one(*names, words.text(40))

    def backend_tls(self, target: dict[str, str]) -> dict[str, Any]:
        """A BackendTLSPolicy of `target`."""
        words = self._words
        ref = lambda: {"group": "", "kind": words.one("ConfigMap", "Secret"), "name": words.one(*AUTHORITIES)}  # noqa: E731
        name = lambda: words.one(  # noqa: E731
            {"type": "Hostname", "hostname": words.one("api.example.com", "*.example.com")},
            {"type": "URI", "uri": words.one("spiffe://partner.example.com/api", f"x://{words.text(30)}")},
        )
        validation: dict[str, Any] = {"hostname": "api.example.com"}
        if words.often(0.3):
            validation["wellKnownCACertificates"] = "System"
        else:
            validation["caCertificateRefs"] = words.several(ref, 1, 2)
        if words.often(0.5):
            validation["subjectAltNames"] = words.several(name, 1, 3)
        spec = {"targetRefs": [target], "validation": validation}
        return {**raw("BackendTLSPolicy", self._name, spec, namespace="shop"), "apiVersion": API}


@cache
def system_roots() -> str:
    """What a system believes."""
    return "".join(_certificate(_curve(), name=f"system {number}") for number in range(3))


@cache
def evidence() -> tuple[dict[str, Any], ...]:
    """The Secrets and ConfigMaps that credentials and authorities are."""
    keys: dict[str, _Key] = {
        "p256": _curve(),
        "p384": ec.generate_private_key(ec.SECP384R1()),
        "rsa": rsa.generate_private_key(65_537, 2048),
        "ed25519": ed25519.Ed25519PrivateKey.generate(),
        "small": rsa.generate_private_key(65_537, 1024),
    }
    root = _certificate(_curve(), name="root")
    made = [
        _object("Secret", name, {"tls.crt": _certificate(key, name=name) + root, "tls.key": _pem(key), "ca.crt": root})
        for name, key in keys.items()
    ]
    several = "".join(_certificate(_curve(), name=f"ca {number}") for number in range(4))
    texts = {"one": root, "several": several + several, "revoking": _revoking(), "junk": "-----BEGIN", "empty": ""}
    made.append(_object("Secret", "odd", {"tls.crt": root, "tls.key": _pem(_curve()), "ca.crt": root}))
    made.append(_object("Secret", "junk", {"tls.crt": "junk", "tls.key": "junk", "ca.crt": root[:99]}))
    made.append(_object("Secret", "authority", {"cacert": several}))
    for name, text in texts.items():
        made.append(_object("ConfigMap", name, {"ca.crt": text}))
        made += [_object("Secret", name, {"ca.crt": text})] if name != "junk" else []
    return tuple(made)


def _object(kind: str, name: str, texts: dict[str, str]) -> dict[str, Any]:
    coded = kind == "Secret"
    data = {key: base64.b64encode(text.encode()).decode() if coded else text for key, text in texts.items()}
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": "shop"}, "data": data}


def _curve() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def _pem(key: _Key) -> str:
    return key.private_bytes(_PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()


def _builder(key: _Key, name: str, serial: int) -> x509.CertificateBuilder:
    title, now = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), datetime.now(UTC)
    made = x509.CertificateBuilder().subject_name(title).issuer_name(title).serial_number(serial)
    made = made.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=3650))
    return made.public_key(key.public_key()).add_extension(x509.BasicConstraints(True, None), critical=True)


def _certificate(key: _Key, *, name: str, serials: Sequence[int] = ()) -> str:
    serial = serials[0] if serials else x509.random_serial_number()
    how = None if isinstance(key, ed25519.Ed25519PrivateKey) else hashes.SHA256()
    return _builder(key, name, serial).sign(key, how).public_bytes(_PEM).decode()


def _revoking() -> str:
    """An authority and its list."""
    key, now = _curve(), datetime.now(UTC)
    title = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "revoking")])
    gone = x509.RevokedCertificateBuilder().serial_number(7).revocation_date(now).build()
    made = x509.CertificateRevocationListBuilder().issuer_name(title).last_update(now - timedelta(days=1))
    made = made.next_update(now + timedelta(days=3650)).add_revoked_certificate(gone)
    return _certificate(key, name="revoking") + made.sign(key, hashes.SHA256()).public_bytes(_PEM).decode()
