"""SPIFFE identities in Istio's form: spiffe://<trust domain>/ns/<namespace>/sa/<service account>."""

from __future__ import annotations

from dataclasses import dataclass

from ambient.errors import InvalidInput

_SCHEME = "spiffe://"


@dataclass(frozen=True, slots=True, order=True)
class Identity:
    """Who a workload is. Compared as a whole, never by prefix."""

    trust_domain: str
    namespace: str
    service_account: str

    def __str__(self) -> str:
        return _SCHEME + self.principal

    @property
    def principal(self) -> str:
        """The identity without the scheme: the form that `principals` of a policy are compared with."""
        return f"{self.trust_domain}/ns/{self.namespace}/sa/{self.service_account}"


def parse_identity(uri: str) -> Identity:
    """Read a SPIFFE URI of exactly five path components; raises InvalidInput for anything else.

    NUL, control characters, blanks, percent signs and empty components are refused: a name that two
    readers could understand in two ways is not an identity.
    """
    if not uri.startswith(_SCHEME):
        raise InvalidInput("not a SPIFFE identity", repr(uri), "must start with spiffe://")
    parts = uri[len(_SCHEME) :].split("/")
    if len(parts) != 5 or parts[1] != "ns" or parts[3] != "sa":
        raise InvalidInput("not a SPIFFE identity", repr(uri), "expected <trust domain>/ns/<namespace>/sa/<account>")
    for part in (parts[0], parts[2], parts[4]):
        if not part or not part.isascii() or not part.isprintable() or any(c in " %?#@:" for c in part):
            raise InvalidInput("not a SPIFFE identity", repr(uri), f"component {part!r} is empty or has odd characters")
    return Identity(parts[0], parts[2], parts[4])
