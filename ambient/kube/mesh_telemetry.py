"""Providers of MeshConfig that are told of requests: collectors of spans and of log records, and the log itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from ambient.kube import syntax
from ambient.kube.read import Field, Object

STDOUT: Final = "stdout"
_FIELDS: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "opentelemetry": ("otlp", ("service", "port")),
    "zipkin": ("zipkin", ("service", "port")),
    "envoyOtelAls": ("otlp-log", ("service", "port")),
    "envoyFileAccessLog": (STDOUT, ("path",)),
}
KINDS: Final = tuple(_FIELDS)
DEFAULTS: Final = ("tracing", "accessLogging")


@dataclass(frozen=True, slots=True)
class Told:
    """`kind` is otlp or zipkin (spans), otlp-log (log records), or stdout: the log of the proxy's pod."""

    name: str
    kind: str
    hostname: str = ""
    port: int = 0


def read_told(name: str, kind: str, field: Field) -> Told:
    """A provider of one of KINDS; raises InvalidInput."""
    said, known = _FIELDS[kind]
    spec = field.object(known)
    if said == STDOUT:
        spec.read("path", lambda f: f.one_of(("/dev/stdout",)), "")
        return Told(name, said)
    hostname = spec.need("service").text().rpartition("/")[2]
    if complaint := syntax.dns_subdomain(hostname):
        raise spec.need("service").refuse(complaint)
    return Told(name, said, hostname, spec.need("port").port())


def read_defaults(top: Mapping[str, Any], what: str) -> dict[str, str]:
    """`defaultProviders`, the first of each of DEFAULTS; raises InvalidInput."""
    spec = Object(Field(top, "", what)).read("defaultProviders", Field.open_object, None)
    if spec is None:
        return {}
    return {kind: names[0] for kind in DEFAULTS if (names := spec.texts(kind))}
