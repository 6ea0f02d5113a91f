"""Who is calling: bearer tokens in gRPC metadata become callers; a refusal carries a reason, never a token."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Protocol

from ambient.ca.token import Caller
from ambient.errors import Refused


class Verifier(Protocol):
    """Somebody who can tell what a token proves."""

    async def verify(self, token: str) -> Caller:
        """Raises Refused, or Unavailable when it cannot be told now."""


class Gate:
    """Tells who calls, and which of them are clients of this control plane."""

    def __init__(self, verifier: Verifier, *, accounts: Collection[str]) -> None:
        """`accounts`: "namespace/account" of every client."""
        self._verifier = verifier
        self._accounts = frozenset(accounts)

    async def client(self, metadata: Sequence[tuple[str, str | bytes]] | Any) -> Caller:
        """The caller of a call, when it is a client; raises Refused, or Unavailable when that cannot be told now."""
        caller = await self.caller(metadata)
        if caller.account not in self._accounts:
            raise Refused("token", caller.account, "is no client of this control plane")
        return caller

    async def caller(self, metadata: Sequence[tuple[str, str | bytes]] | Any) -> Caller:
        """The caller of a call, whoever it is; raises Refused, or Unavailable when that cannot be told now."""
        given = [value for key, value in metadata or () if key == "authorization"]
        if len(given) != 1 or not isinstance(given[0], str):
            raise Refused("token", why="no bearer token" if not given else "more than one authorization header")
        scheme, _, token = given[0].partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Refused("token", why="not a bearer token")
        return await self._verifier.verify(token)


def peer_of(context: Any) -> str:
    """The transport address of a call, for logs."""
    return str(context.peer()).removeprefix("ipv4:").removeprefix("ipv6:").replace("%5B", "[").replace("%5D", "]")
