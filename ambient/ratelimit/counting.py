"""Counting in Redis: one script, run there as one step, so that any number of proxies and of us share each count.

Windows are fixed, and begin when the clock of Redis has a whole number of them: never more than the limit within one,
and at most twice as many within any span of that length. A request that one of its limits refuses is counted by none.
Of values that clients choose so many have counts of their own; others share some until the window ends, so nobody fills
Redis, which would then count nothing for anybody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from redis.exceptions import ConnectionError as NoConnection
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as TooSlow

from ambient.errors import ProtocolError, Unavailable
from ambient.ratelimit.asked import Asked, Counted

MOST_VALUES: Final = 100_000
"""Of one header or claim of one route with counts of their own in one window: some 15 MB."""
_SCRIPT: Final = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local hits, most = tonumber(ARGV[1]), tonumber(ARGV[2])
local keys, new, counts, over, refused = {}, {}, {}, {}, false
for i = 1, #KEYS / 3 do
  local key, values, rest = KEYS[3 * i - 2], KEYS[3 * i - 1], KEYS[3 * i]
  local found = redis.call('GET', key)
  if not found and values ~= key then
    new[i] = tonumber(redis.call('GET', values) or '0') < most and values or nil
    if not new[i] then
      key = rest
      found = redis.call('GET', key)
    end
  end
  keys[i], counts[i] = key, tonumber(found or '0')
  over[i] = counts[i] + hits > tonumber(ARGV[2 * i + 1]) and 1 or 0
  refused = refused or over[i] == 1
end
local function add(key, by, left)
  local count = redis.call('INCRBY', key, by)
  if redis.call('PTTL', key) < 0 then redis.call('PEXPIRE', key, left) end
  return count
end
local told = {}
for i, key in ipairs(keys) do
  local period = tonumber(ARGV[2 * i + 2]) * 1000
  local left = redis.call('PTTL', key)
  if not refused then
    counts[i] = add(key, hits, period - now % period)
    if new[i] then add(new[i], 1, period - now % period) end
  end
  if left < 0 then left = period - now % period end
  told[3 * i - 2], told[3 * i - 1], told[3 * i] = counts[i], left, over[i]
end
return told
"""


class _Password(CredentialProvider):
    """Read for each connection: the Secret may be another one by then."""

    def __init__(self, username: str, file: Path) -> None:
        self._username = username
        self._file = file

    def get_credentials(self) -> tuple[str] | tuple[str, str]:
        try:
            password = self._file.read_text().strip()
        except OSError as error:
            raise NoConnection(f"{self._file}: {error.strerror}") from None
        return (self._username, password) if self._username else (password,)


class Counts:
    """Limits in one Redis. What cannot be had of it within `timeout_s` is not waited for, and nothing is tried again:
    a request might be counted twice."""

    def __init__(
        self,
        address: str,
        *,
        timeout_s: float,
        connections: int = 64,
        username: str = "",
        password: Path | None = None,
        authorities: Path | None = None,
        most_values: int = MOST_VALUES,
    ) -> None:
        """`address`: redis://HOST:PORT/DATABASE, or rediss:// over TLS, then with `authorities` in PEM, or the
        system's. `password`: the file that it is in."""
        more: dict[str, Any] = {}
        if address.startswith("rediss:"):
            # Older clients ask for any good certificate, whoever's it is.
            more["ssl_check_hostname"] = True
            if authorities is not None:
                more["ssl_ca_certs"] = str(authorities)
        if password is not None:
            more["credential_provider"] = _Password(username, password)
        pool = BlockingConnectionPool.from_url(
            address,
            max_connections=connections,
            timeout=timeout_s,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),
            **more,
        )
        self._timeout_s = timeout_s
        self._most_values = most_values
        self._redis = Redis(connection_pool=pool)
        self._script = self._redis.register_script(_SCRIPT)

    async def count(self, asked: Sequence[Asked], hits: int) -> tuple[Counted, ...]:
        """Raises Unavailable, or ProtocolError for an answer that is none."""
        # Without values that somebody chooses there is one key, three times: all have to be in one place.
        keys = [key for one in asked for key in (one.key, one.values or one.key, one.rest or one.key)]
        numbers = [number for one in asked for number in (one.count, one.period_s)]
        arguments = [hits, self._most_values, *numbers]
        return _counted(await self._ask(self._script(keys=keys, args=arguments)), asked)

    async def ping(self) -> None:
        """Raises Unavailable, or ProtocolError."""
        if await self._ask(self._redis.ping()) is not True:
            raise ProtocolError("Redis", "PING", "its answer is none")

    async def close(self) -> None:
        await self._redis.aclose()
        await self._redis.connection_pool.disconnect()

    async def _ask(self, question: Any) -> Any:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await question
        except (TimeoutError, TooSlow):
            raise Unavailable("Redis", why=f"no answer within {self._timeout_s:g} s") from None
        except (NoConnection, OSError) as error:
            raise Unavailable("Redis", why=str(error)[:200]) from None
        except (RedisError, ValueError, TypeError, UnicodeDecodeError) as error:
            raise ProtocolError("Redis", type(error).__name__, str(error)[:200]) from None


def _counted(told: Any, asked: Sequence[Asked]) -> tuple[Counted, ...]:
    """Three numbers for each limit: its count, the rest of its window, and whether it is exceeded."""
    if not isinstance(told, list) or len(told) != 3 * len(asked) or not all(type(one) is int for one in told):
        raise ProtocolError("Redis", "script", f"its answer is none: {str(told)[:80]!r}")
    found = []
    for limit, count, left, over in zip(asked, told[::3], told[1::3], told[2::3], strict=True):
        if count < 0 or not 0 <= left <= limit.period_s * 1000 or over not in (0, 1):
            raise ProtocolError("Redis", "script", f"its answer is none: {count}, {left}, {over}")
        found.append(Counted(limit.count - count, left, bool(over)))
    return tuple(found)
