"""Node tokens that a key of ours has signed (the lab's), with the keys in a file that may change."""

from __future__ import annotations

import time
from pathlib import Path

from ambient.ca.token import Caller, load_token_keys, verify_token
from ambient.errors import InvalidInput, Unavailable


class SignedTokens:
    """Verifies tokens with the public keys in a PEM file, read again when it changes."""

    def __init__(self, key_file: Path, *, issuer: str, audience: str) -> None:
        self._file = key_file
        self._issuer = issuer
        self._audience = audience
        self._seen: tuple[int, int] = (0, 0)
        self._keys: tuple[str, ...] = ()
        self._refresh()

    async def verify(self, token: str) -> Caller:
        """The caller that `token` proves; raises Refused."""
        self._refresh()
        return verify_token(token, self._keys, time.time(), issuer=self._issuer, audience=self._audience)

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
