"""Who the peer is: a pure check of the certificate that the TLS library has already verified up to a root.

The certificate must carry exactly one URI name and that must be a SPIFFE identity; anything a second reader could
understand in another way is refused.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from ambient.errors import InvalidInput, Refused
from ambient.model.identity import Identity, parse_identity


def peer_identity(certificate: Mapping[str, object] | None) -> Identity:
    """The identity in a certificate as `SSLObject.getpeercert()` describes it. Raises Refused."""
    if not certificate:
        raise Refused("peer certificate", "", "none was presented")
    names = certificate.get("subjectAltName", ())
    if not isinstance(names, tuple):
        raise Refused("peer certificate", "subjectAltName", "not readable")
    uris = [entry[1] for entry in names if isinstance(entry, tuple) and len(entry) == 2 and entry[0] == "URI"]
    if len(uris) != 1:
        raise Refused("peer certificate", "subjectAltName", f"{len(uris)} URI names where exactly one is required")
    try:
        return parse_identity(str(uris[0]))
    except InvalidInput as error:
        raise Refused("peer certificate", "subjectAltName", str(error)) from None


def verify_client(certificate: Mapping[str, object] | None, trust_domain: str) -> Identity:
    """Server side: the client's identity, which must be of our own trust domain. Raises Refused."""
    identity = peer_identity(certificate)
    if identity.trust_domain != trust_domain:
        raise Refused("peer certificate", str(identity), f"not of trust domain {trust_domain}")
    return identity


def verify_server(certificate: Mapping[str, object] | None, expected: Collection[str]) -> Identity:
    """Client side: the server's identity, which must be one of `expected` (SPIFFE URIs). Raises Refused."""
    identity = peer_identity(certificate)
    if str(identity) not in expected:
        wanted = ", ".join(sorted(expected)) or "nobody"
        raise Refused("peer certificate", str(identity), f"expected {wanted}")
    return identity
