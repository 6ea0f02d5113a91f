"""Who signs: our own authority, or a signer outside that the cluster knows; one interface for both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

from ambient.ca.csr import SigningRequest
from ambient.ca.issue import Issued, issue, issue_server
from ambient.ca.roots import Authority
from ambient.errors import InvalidInput, Refused
from ambient.model.address import IpAddress


@dataclass(frozen=True, slots=True)
class Serving:
    """A server's certificate: `chain` (leaf first, no root) and `key` as PEM, and its life."""

    chain: str
    key: str
    serial: int
    not_before: datetime
    not_after: datetime


class Issuer(Protocol):
    """Whoever turns requests that were found entitled into certificates."""

    @property
    def roots(self) -> str:
        """PEM of every root that is trusted now."""

    async def issue(self, request: SigningRequest, csr: str, wanted: timedelta | None, signer: str = "") -> Issued:
        """`csr`: the request as it came. `wanted`: the life asked for. `signer`: the one that was asked for by name.

        Raises Refused, InvalidInput or Unavailable.
        """

    async def serving(self, names: Sequence[str], addresses: Sequence[IpAddress], life: timedelta) -> Serving:
        """A certificate for a server of ours with a new key."""


class OwnIssuer:
    """Signs with the authority of the moment."""

    def __init__(self, authority: Callable[[], Authority], *, default: timedelta, longest: timedelta) -> None:
        self._authority = authority
        self._default = default
        self._longest = longest

    @property
    def roots(self) -> str:
        return self._authority().roots

    async def issue(self, request: SigningRequest, csr: str, wanted: timedelta | None, signer: str = "") -> Issued:
        if signer:
            raise InvalidInput("certificate request", "CertSigner", "there are no external signers here")
        now = datetime.now(UTC)
        return issue(self._authority(), request, now, wanted, default=self._default, longest=self._longest)

    async def serving(self, names: Sequence[str], addresses: Sequence[IpAddress], life: timedelta) -> Serving:
        now = datetime.now(UTC)
        issued, key = issue_server(self._authority(), names, addresses, now, life)
        return Serving("".join(issued.chain[:-1]), key, issued.serial, now, issued.not_after)


class NoIssuer:
    """Certificates come from somewhere else (an istio-csr, say); our own is in files that somebody renews."""

    def __init__(self, roots: Callable[[], str], serving: Callable[[], Serving]) -> None:
        self._roots = roots
        self._serving = serving

    @property
    def roots(self) -> str:
        return self._roots()

    async def issue(self, request: SigningRequest, csr: str, wanted: timedelta | None, signer: str = "") -> Issued:
        raise Refused("certificate request", str(request.identity), "certificates are issued elsewhere: see CA_ADDRESS")

    async def serving(self, names: Sequence[str], addresses: Sequence[IpAddress], life: timedelta) -> Serving:
        return self._serving()
