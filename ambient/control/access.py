"""Who is calling: bearer tokens in gRPC metadata become callers; a refusal carries a reason, never a token."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from ambient.ca.token import Caller, load_token_keys, verify_token
from ambient.errors import InvalidInput, Refused, Unavailable


class Gate:
    """Verifies tokens with the keys in a PEM file, read again when it changes."""

    def __init__(self, key_file: Path, *, issuer: str, audience: str, accounts: Collection[str]) -> None:
        self._file = key_file
        self._issuer = issuer
        self._audience = audience
        self._accounts = frozenset(accounts)
        self._seen: tuple[int, int] = (0, 0)
        self._keys: tuple[str, ...] = ()
        self._refresh()

    def caller(self, metadata: Sequence[tuple[str, str | bytes]] | Any) -> Caller:
        """The caller of a call; raises Refused."""
        given = [value for key, value in metadata or () if key == "authorization"]
        if len(given) != 1 or not isinstance(given[0], str):
            raise Refused("token", why="no bearer token" if not given else "more than one authorization header")
        scheme, _, token = given[0].partition(" ")
        if scheme.lower() != "bearer" or not token:
            raise Refused("token", why="not a bearer token")
        self._refresh()
        caller = verify_token(token, self._keys, time.time(), issuer=self._issuer, audience=self._audience)
        if caller.account not in self._accounts:
            raise Refused("token", caller.account, "is no client of this control plane")
        return caller

    def _refresh(self) -> None:
        """Read the keys when the file changed; a broken file keeps the old keys, and is an error at the start."""
        try:
            stat = self._file.stat()
            if (stat.st_mtime_ns, stat.st_ino) == self._seen:
                return
            keys = load_token_keys(self._file.read_text())
        except OSError as error:
            if not self._keys:
                raise Unavailable("token key", str(self._file), error.strerror or str(error)) from None
        except InvalidInput:
            if not self._keys:
                raise
        else:
            self._keys, self._seen = keys, (stat.st_mtime_ns, stat.st_ino)


def peer_of(context: Any) -> str:
    """The transport address of a call, for logs."""
    return str(context.peer()).removeprefix("ipv4:").removeprefix("ipv6:").replace("%5B", "[").replace("%5D", "]")
