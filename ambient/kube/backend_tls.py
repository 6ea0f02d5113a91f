"""Gateway API: BackendTLSPolicy, the TLS that a service's application wants to be spoken to with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Final

from ambient.kube import syntax
from ambient.kube.metadata import Shape, read_common
from ambient.kube.networking import ObjectRef
from ambient.kube.read import Field, Object
from ambient.kube.records import Record

GROUP: Final = "gateway.networking.k8s.io"
SHAPE: Final = Shape((f"{GROUP}/v1", f"{GROUP}/v1alpha3"), True, syntax.dns_subdomain, ("spec",), strict=True)
_MOST_TARGETS: Final = 16
_MOST_REFS: Final = 8
_MOST_NAMES: Final = 5
_MOST_OPTIONS: Final = 16


@dataclass(frozen=True, slots=True)
class TlsTarget:
    """What it is for, in its own namespace. `section`: the name of a port, "": all."""

    group: str
    kind: str
    name: str
    section: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class BackendTLSPolicy(Record):
    """`hostname` is the server name that is asked for. `names`: one of them has to be in the certificate, () means the
    host name. `authorities`: who vouches for it; `system`: whom everybody's system believes, instead."""

    kind: ClassVar[str] = "BackendTLSPolicy"
    targets: tuple[TlsTarget, ...] = ()
    hostname: str = ""
    names: tuple[str, ...] = ()
    authorities: tuple[ObjectRef, ...] = ()
    system: bool = False


def parse_backend_tls_policy(top: Object, raw: Mapping[str, Any]) -> BackendTLSPolicy:
    """Raises InvalidInput; every rule has its row in the tests."""
    common = read_common(top, SHAPE, raw)
    spec = top.need("spec").object(("targetRefs", "validation", "options"))
    targets = _few(spec, "targetRefs", _MOST_TARGETS, _target)
    if not targets:
        raise Field(None, "spec.targetRefs", top.at.what).refuse("needs at least one entry")
    if len(set(targets)) < len(targets):
        raise spec.need("targetRefs").refuse("an entry is there twice")
    if len(spec.text_map("options")) > _MOST_OPTIONS:
        raise spec.need("options").refuse(f"at most {_MOST_OPTIONS} entries")
    checks = spec.need("validation").object(
        ("caCertificateRefs", "wellKnownCACertificates", "hostname", "subjectAltNames")
    )
    authorities = _few(checks, "caCertificateRefs", _MOST_REFS, _ref)
    system = bool(checks.read("wellKnownCACertificates", lambda field: field.one_of(("System", "")), ""))
    if system is bool(authorities):
        raise checks.at.refuse("needs either caCertificateRefs or wellKnownCACertificates, and not both")
    return BackendTLSPolicy(
        **common,
        targets=targets,
        hostname=checks.need("hostname").checked(syntax.dns_subdomain),
        names=_few(checks, "subjectAltNames", _MOST_NAMES, _name),
        authorities=authorities,
        system=system,
    )


def _few(entry: Object, key: str, most: int, reader: Any) -> tuple[Any, ...]:
    found = entry.each(key, reader)
    if len(found) > most:
        raise entry.need(key).refuse(f"at most {most} entries")
    return found


def _target(field: Field) -> TlsTarget:
    entry = field.object(("group", "kind", "name", "sectionName"))
    return TlsTarget(
        entry.need("group").text(),
        entry.need("kind").text(),
        entry.need("name").checked(syntax.dns_subdomain),
        entry.text("sectionName"),
    )


def _ref(field: Field) -> ObjectRef:
    entry = field.object(("group", "kind", "name"))
    name = entry.need("name").checked(syntax.dns_subdomain)
    return ObjectRef(entry.need("group").text(), entry.need("kind").text(), name)


def _name(field: Field) -> str:
    entry = field.object(("type", "hostname", "uri"))
    kind = entry.need("type").one_of(("Hostname", "URI"))
    wanted, other = ("hostname", "uri") if kind == "Hostname" else ("uri", "hostname")
    if entry.text(other):
        raise entry.need(other).refuse(f"does not go with type {kind}")
    if kind == "URI":
        return entry.need(wanted).checked(lambda text: "" if "://" in text else f"{text!r} is no absolute URI")
    return entry.need(wanted).checked(lambda text: syntax.dns_subdomain(text.removeprefix("*.")))
