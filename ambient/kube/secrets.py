"""Secrets, as far as gateways need them: certificates, their keys, and authorities. What they hold is never shown."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar, Final

from ambient.kube import syntax
from ambient.kube.metadata import Shape, read_common
from ambient.kube.read import Field, Object
from ambient.kube.records import NOTHING, Record

SHAPE: Final = Shape(("v1",), True, syntax.dns_subdomain, ("data", "stringData", "type", "immutable"))
CERTIFICATE: Final = "tls.crt"
KEY: Final = "tls.key"
AUTHORITY: Final = "ca.crt"
_ISTIO_AUTHORITY: Final = "cacert"
"""The same in Secrets as Istio's documentation makes them; `ca.crt` goes before it."""
_KEPT: Final = (CERTIFICATE, KEY, AUTHORITY, _ISTIO_AUTHORITY)
_TLS: Final = "kubernetes.io/tls"


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret(Record):
    """`data`: texts by name, those that a gateway may need and no others."""

    kind: ClassVar[str] = "Secret"
    type: str = "Opaque"
    data: Mapping[str, str] = field(default_factory=lambda: NOTHING, repr=False)


def parse_secret(top: Object, raw: Mapping[str, Any]) -> Secret:
    """Raises InvalidInput, which quotes nothing of what the Secret holds."""
    common = read_common(top, SHAPE, raw)
    # What `apply` notes of an object is the whole object.
    common["annotations"] = MappingProxyType({k: v for k, v in common["annotations"].items() if "applied" not in k})
    found = {}
    for name, place in (("data", _decoded), ("stringData", Field.text)):
        given = top.read(name, Field.open_object, None)
        for key in _KEPT if given is not None else ():
            value = given.get(key) if given is not None else None
            if value is not None:
                if not isinstance(value.value, str):
                    raise value.refuse("expected a string")
                found[key] = place(value)
    if (authority := found.pop(_ISTIO_AUTHORITY, "")) and not found.get(AUTHORITY):
        found[AUTHORITY] = authority
    kind = top.text("type", "Opaque")
    if kind == _TLS and not {CERTIFICATE, KEY} <= found.keys():
        raise Field(None, "data", top.at.what).refuse(f"a Secret of type {_TLS} needs {CERTIFICATE} and {KEY}")
    return Secret(**common, type=kind, data=MappingProxyType(found))


def _decoded(field: Field) -> str:
    try:
        return base64.b64decode("".join(field.value.split()), validate=True).decode()
    except (binascii.Error, ValueError):
        raise field.refuse("is not text in base64") from None
