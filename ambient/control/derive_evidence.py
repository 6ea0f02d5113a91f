"""Certificates that gateways refer to: found, permitted, and such that Envoy can use them. Names no content of any.

A Secret that has become unusable is not taken: its last good version stays, and the listener says why. A
BackendTLSPolicy, as the Gateway API wants it, goes by what its authorities say now.
Proxies are given what was understood, written anew (`pem`): what else stands in a text could be read otherwise there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ambient.control import pem
from ambient.kube import syntax
from ambient.kube.networking import ClientCheck, ObjectRef
from ambient.kube.objects import ConfigMap, Record, Records, Secret, record_key
from ambient.kube.secrets import AUTHORITY, CERTIFICATE, KEY
from ambient.waypoint.evidence import Evidence

_Texts = tuple[str, ...]
"""PEM: a certificate and its key, or authorities."""


class Missing(Exception):
    """What is referred to cannot be had. `reason` is the Gateway API's."""

    def __init__(self, reason: str, why: str) -> None:
        super().__init__(why)
        self.reason, self.why = reason, why


class EvidenceStore:
    """`update` with every snapshot; then what is referred to from a namespace, `home`."""

    def __init__(self) -> None:
        self._records = Records()
        self._judged: dict[str, tuple[Record, str]] = {}
        self._good: dict[str, _Texts] = {}
        self.unread: Callable[[str], str] = lambda key: ""
        """Why an object may not be read, by its key."""

    def update(self, records: Records) -> None:
        self._records = records
        gone = [key for key in self._judged if key.partition(":")[2] not in records.by_key]
        for key in gone:
            del self._judged[key]
            self._good.pop(key, None)

    def certificate(
        self, home: str, ref: ObjectRef, granted: Callable[[ObjectRef], bool], *, serving: bool = True
    ) -> tuple[Evidence | None, Missing | None]:
        """A certificate with its key, and what is wrong with it. `serving`: it is for clients, not for servers."""
        try:
            record = self._find(home, ref, granted, (Secret,), "InvalidCertificateRef")
        except Missing as error:
            return None, error
        good, why = self._good_version(record, _shown if serving else _pair)
        wrong = Missing("InvalidCertificateRef", f"{record.key}: {why}") if why else None
        return Evidence(f"server/{record.namespace}/{record.name}", *good) if good else None, wrong

    def authority(
        self, home: str, check: ClientCheck, granted: Callable[[ObjectRef], bool], *, newest: bool = False
    ) -> tuple[Evidence | None, Missing | None]:
        """All that vouch for peers, in one. One that cannot be had is left out: fewer peers are believed. `newest`: so
        is one whose newest version cannot be used, whatever an older one said."""
        texts: list[str] = []
        names, wrong = [], None
        for ref in check.authorities:
            try:
                record = self._find(home, ref, granted, (ConfigMap, Secret), "InvalidCACertificateRef")
            except Missing as error:
                wrong = wrong or error
                continue
            good, why = self._good_version(record, _vouching)
            if why:
                wrong = wrong or Missing("InvalidCACertificateRef", f"{record.key}: {why}")
            if good and not (why and newest):
                texts += good
                names.append(f"{record.kind}/{record.namespace}/{record.name}")
        if not texts:
            return None, wrong or Missing("NoValidCACertificate", "no authority")
        return Evidence(f"authority/{'+'.join(names)}", "".join(texts)), wrong

    def _find(
        self,
        home: str,
        ref: ObjectRef,
        granted: Callable[[ObjectRef], bool],
        kinds: Iterable[type[ConfigMap] | type[Secret]],
        reason: str,
    ) -> Record:
        fitting = [one for one in kinds if one.kind == ref.kind]
        if ref.group not in ("", "core") or not fitting:
            wrong = "InvalidCertificateRef" if reason == "InvalidCertificateRef" else "InvalidCACertificateKind"
            raise Missing(wrong, f"{ref.kind} {ref.name} is nothing that holds certificates")
        namespace = ref.namespace or home
        if why := syntax.dns_subdomain(ref.name):
            raise Missing(reason, why)
        if namespace != home and not granted(ref):
            raise Missing("RefNotPermitted", f"no ReferenceGrant in {namespace} permits {ref.kind} {ref.name}")
        key = record_key(ref.kind, namespace, ref.name)
        found = self._records.by_key.get(key)
        if found is None:
            raise Missing(reason, self._why_not(key, f"{ref.kind} {namespace}/{ref.name}"))
        return found

    def _why_not(self, key: str, title: str) -> str:
        refused = next((one for one in self._records.refused if one.key == key), None)
        if refused is not None:
            return str(refused.error)
        why = self.unread(key)
        return f"we may not read {title}: {why}" if why else f"there is no {title}"

    def _good_version(self, record: Record, judge: Callable[[Record], _Texts]) -> tuple[_Texts, str]:
        """What the newest version that can be used says, () when none can, and what is wrong with the newest of
        all."""
        key = f"{judge.__name__}:{record.key}"
        before = self._judged.get(key)
        if before is None or before[0] is not record:
            try:
                self._good[key], why = judge(record), ""
            except pem.Unusable as error:
                why = str(error)
            self._judged[key] = (record, why)
        return self._good.get(key, ()), self._judged[key][1]


def _pair(record: Record) -> _Texts:
    """What Envoy proves itself to servers with; raises Unusable."""
    return pem.pair(*_texts(record), serving=False)


def _shown(record: Record) -> _Texts:
    """What Envoy proves itself to clients with; raises Unusable."""
    return pem.pair(*_texts(record), serving=True)


def _texts(record: Record) -> tuple[str, str]:
    if not isinstance(record, Secret) or not record.data.get(CERTIFICATE) or not record.data.get(KEY):
        raise pem.Unusable(f"has no {CERTIFICATE} and {KEY}")
    return record.data[CERTIFICATE], record.data[KEY]


def _vouching(record: Record) -> _Texts:
    """Raises Unusable."""
    if not isinstance(record, ConfigMap | Secret) or not record.data.get(AUTHORITY):
        raise pem.Unusable(f"has no {AUTHORITY}")
    return (pem.authorities(record.data[AUTHORITY]),)
