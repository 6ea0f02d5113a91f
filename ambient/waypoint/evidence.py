"""Certificates that proxies are given: what one proves itself with, and who it lets vouch for others."""

from __future__ import annotations

from dataclasses import dataclass, field

from ambient.waypoint.typed import Message


@dataclass(frozen=True, slots=True)
class Evidence:
    """Certificates in PEM under a name; with `key` they are its own, without they vouch for others."""

    name: str
    chain: str = field(repr=False)
    key: str = field(default="", repr=False)


def secret(evidence: Evidence) -> Message:
    """As Envoy's secret."""
    chain = {"inline_string": evidence.chain}
    if not evidence.key:
        return {"name": evidence.name, "validation_context": {"trusted_ca": chain}}
    own = {"certificate_chain": chain, "private_key": {"inline_string": evidence.key}}
    return {"name": evidence.name, "tls_certificate": own}
