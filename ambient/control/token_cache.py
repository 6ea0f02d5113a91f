"""What was found out about tokens lately: by a keyed hash of the token, bounded in number and in time. Pure.

A good answer is fresh for a while, and may be used a while longer when nobody can be asked; never past the token's own
end. A bad answer is kept for a few seconds, so that a client that insists costs one question.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

from ambient.ca.token import Caller
from ambient.errors import Refused

MOST_KNOWN: Final = 8_192
MOST_REFUSED: Final = 1_024


@dataclass(frozen=True, slots=True)
class _Known:
    caller: Caller
    fresh_until: float
    usable_until: float


class TokenCache:
    """Times are seconds of any clock that only goes forward."""

    def __init__(self, *, fresh_s: float, stale_s: float, refused_s: float) -> None:
        """`fresh_s`: how long an answer stands without asking; `stale_s`: how long when nobody can be asked."""
        self._fresh_s = fresh_s
        self._stale_s = max(stale_s, fresh_s)
        self._refused_s = refused_s
        # The hash is keyed: whoever reads our memory finds no hash that he can look up or try tokens against.
        self._salt = secrets.token_bytes(32)
        self._known: OrderedDict[bytes, _Known] = OrderedDict()
        self._refused: OrderedDict[bytes, tuple[str, float]] = OrderedDict()

    def key(self, token: str) -> bytes:
        return hashlib.blake2b(token.encode("utf-8", "surrogatepass"), key=self._salt, digest_size=32).digest()

    def fresh(self, key: bytes, now: float) -> Caller | None:
        """The caller that needs no asking; raises Refused when the token was refused a moment ago."""
        refused = self._refused.get(key)
        if refused is not None:
            if now < refused[1]:
                raise Refused("token", why=refused[0])
            del self._refused[key]
        known = self._known.get(key)
        return known.caller if known is not None and now < known.fresh_until else None

    def usable(self, key: bytes, now: float) -> Caller | None:
        """The caller as it was found out some time ago, for when nobody can be asked."""
        known = self._known.get(key)
        if known is None:
            return None
        if now >= known.usable_until:
            del self._known[key]
            return None
        return known.caller

    def accept(self, key: bytes, caller: Caller, now: float, life_s: float) -> None:
        """`life_s`: what is left of the token's own life."""
        self._refused.pop(key, None)
        self._known[key] = _Known(caller, now + min(self._fresh_s, life_s), now + min(self._stale_s, life_s))
        self._known.move_to_end(key)
        while len(self._known) > MOST_KNOWN:
            self._known.popitem(last=False)

    def refuse(self, key: bytes, why: str, now: float) -> None:
        self._known.pop(key, None)
        self._refused[key] = (why, now + self._refused_s)
        self._refused.move_to_end(key)
        while len(self._refused) > MOST_REFUSED:
            self._refused.popitem(last=False)
