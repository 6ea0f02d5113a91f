"""Certificates that gateways refer to: found, permitted, and such that Envoy can use them. Names no content of any.

A Secret that has become unusable is not taken: its last good version stays, and the listener says why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from ambient.kube.networking import ClientCheck, Gateway, ObjectRef
from ambient.kube.objects import ConfigMap, Record, Records, Secret, record_key
from ambient.kube.secrets import AUTHORITY, CERTIFICATE, KEY
from ambient.waypoint.door import Evidence

_CURVES: Final = ("secp256r1", "secp384r1", "secp521r1")
_SMALLEST_RSA: Final = 2048
_PUBLIC: Final = (Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


class Missing(Exception):
    """What is referred to cannot be had. `reason` is the Gateway API's."""

    def __init__(self, reason: str, why: str) -> None:
        super().__init__(why)
        self.reason, self.why = reason, why


class EvidenceStore:
    """`update` with every snapshot; then what a Gateway refers to."""

    def __init__(self) -> None:
        self._records = Records()
        self._judged: dict[str, tuple[Record, str]] = {}
        self._good: dict[str, Record] = {}

    def update(self, records: Records) -> None:
        self._records = records
        gone = [key for key in self._judged if key.partition(":")[2] not in records.by_key]
        for key in gone:
            del self._judged[key]
            self._good.pop(key, None)

    def certificate(
        self, gateway: Gateway, ref: ObjectRef, granted: Callable[[ObjectRef], bool]
    ) -> tuple[Evidence | None, Missing | None]:
        """A server certificate with its key, and what is wrong with it."""
        try:
            record = self._find(gateway, ref, granted, (Secret,), "InvalidCertificateRef")
        except Missing as error:
            return None, error
        good, why = self._good_version(record, _pair)
        wrong = Missing("InvalidCertificateRef", f"{record.key}: {why}") if why else None
        if not isinstance(good, Secret):
            return None, wrong
        return Evidence(f"server/{record.namespace}/{record.name}", good.data[CERTIFICATE], good.data[KEY]), wrong

    def authority(
        self, gateway: Gateway, check: ClientCheck, granted: Callable[[ObjectRef], bool]
    ) -> tuple[Evidence | None, Missing | None]:
        """All that vouch for clients, in one. One that cannot be had is left out: fewer clients are let in."""
        texts, names, wrong = [], [], None
        for ref in check.authorities:
            try:
                record = self._find(gateway, ref, granted, (ConfigMap, Secret), "InvalidCACertificateRef")
            except Missing as error:
                wrong = wrong or error
                continue
            good, why = self._good_version(record, _vouching)
            if why:
                wrong = wrong or Missing("InvalidCACertificateRef", f"{record.key}: {why}")
            if isinstance(good, ConfigMap | Secret):
                texts.append(good.data[AUTHORITY].strip() + "\n")
                names.append(f"{record.kind}/{record.namespace}/{record.name}")
        if not texts:
            return None, wrong or Missing("NoValidCACertificate", "no authority")
        return Evidence(f"authority/{'+'.join(names)}", "".join(texts)), wrong

    def _find(
        self,
        gateway: Gateway,
        ref: ObjectRef,
        granted: Callable[[ObjectRef], bool],
        kinds: Iterable[type[ConfigMap] | type[Secret]],
        reason: str,
    ) -> Record:
        fitting = [one for one in kinds if one.kind == ref.kind]
        if ref.group not in ("", "core") or not fitting:
            wrong = "InvalidCertificateRef" if reason == "InvalidCertificateRef" else "InvalidCACertificateKind"
            raise Missing(wrong, f"{ref.kind} {ref.name} is nothing that holds certificates")
        namespace = ref.namespace or gateway.namespace
        if namespace != gateway.namespace and not granted(ref):
            raise Missing("RefNotPermitted", f"no ReferenceGrant in {namespace} permits {ref.kind} {ref.name}")
        found = self._records.by_key.get(record_key(ref.kind, namespace, ref.name))
        if found is None:
            raise Missing(reason, f"there is no {ref.kind} {namespace}/{ref.name}")
        return found

    def _good_version(self, record: Record, judge: Callable[[Record], str]) -> tuple[Record | None, str]:
        """The newest version that can be used, and what is wrong with the newest of all."""
        key = f"{judge.__name__}:{record.key}"
        before = self._judged.get(key)
        if before is None or before[0] is not record:
            why = judge(record)
            self._judged[key] = (record, why)
            if not why:
                self._good[key] = record
        return self._good.get(key), self._judged[key][1]


def _pair(record: Record) -> str:
    """What keeps Envoy from proving itself with it, "" when nothing does."""
    if not isinstance(record, Secret) or not record.data.get(CERTIFICATE) or not record.data.get(KEY):
        return f"has no {CERTIFICATE} and {KEY}"
    try:
        leaf = x509.load_pem_x509_certificates(record.data[CERTIFICATE].encode())[0]
        key = load_pem_private_key(record.data[KEY].encode(), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return f"{CERTIFICATE} and {KEY} are not a certificate and its key in PEM"
    if isinstance(key, rsa.RSAPrivateKey):
        if key.key_size < _SMALLEST_RSA:
            return f"{KEY}: RSA keys need at least {_SMALLEST_RSA} bits"
    elif not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name not in _CURVES:
        return f"{KEY}: neither RSA nor one of the curves {', '.join(_CURVES)}"
    if leaf.public_key().public_bytes(*_PUBLIC) != key.public_key().public_bytes(*_PUBLIC):
        return f"{KEY} is not the key of the first certificate of {CERTIFICATE}"
    return ""


def _vouching(record: Record) -> str:
    if not isinstance(record, ConfigMap | Secret) or not record.data.get(AUTHORITY):
        return f"has no {AUTHORITY}"
    try:
        x509.load_pem_x509_certificates(record.data[AUTHORITY].encode())
    except ValueError:
        return f"{AUTHORITY} is no certificate in PEM"
    return ""
