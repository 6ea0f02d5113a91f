"""How tunnels and sockets behave where Istio lets it be set: windows, pooling, keepalive. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol, TypeVar

from ambient.settings import boolean, duration, integer, size
from ztunnel.hbone.limits import CLIENT, SERVER, Limits

_T = TypeVar("_T")
_SMALLEST_FRAME, _LARGEST_FRAME = 16_384, (1 << 24) - 1
_SMALLEST_WINDOW, _LARGEST_WINDOW = 65_535, (1 << 31) - 1


class Reader(Protocol):
    """Typed access to the environment."""

    def parsed(self, name: str, default: _T, parse: Callable[[str], _T]) -> _T:
        """The value of a variable, or the default; raises InvalidInput naming it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """Sizes in octets, times in seconds. The defaults are Istio's."""

    stream_window: int = CLIENT.grown_window
    """To here a stream's window may grow; it begins at no more than this."""
    connection_window: int = CLIENT.connection_window
    frame_size: int = CLIENT.max_frame
    pool_streams: int = CLIENT.max_streams
    pool_idle_s: float = 300.0
    keepalive: bool = True
    keepalive_idle_s: int = 180
    keepalive_interval_s: int = 180
    keepalive_probes: int = 9
    user_timeout: bool = False
    """Give up on unacknowledged octets when keepalive would give up on a silent peer."""
    local_app_tunnel: bool = True
    response_baggage: bool = True

    @property
    def user_timeout_ms(self) -> int:
        """TCP_USER_TIMEOUT, 0: the kernel's own rule."""
        seconds = self.keepalive_idle_s + self.keepalive_probes * self.keepalive_interval_s
        return seconds * 1000 if self.user_timeout else 0

    def limits(self, *, client: bool) -> Limits:
        """Those of a connection in that role."""
        base = replace(CLIENT, max_streams=self.pool_streams) if client else SERVER
        return replace(
            base,
            stream_window=min(base.stream_window, self.stream_window),
            grown_window=self.stream_window,
            connection_window=self.connection_window,
            max_frame=self.frame_size,
        )


def read_tuning(reader: Reader) -> Tuning:
    """The settings of the environment. Raises InvalidInput naming the variable."""
    usual = Tuning()
    window = _within(_SMALLEST_WINDOW, _LARGEST_WINDOW)
    seconds = integer(1, 32_767)
    return Tuning(
        stream_window=reader.parsed("HTTP2_STREAM_WINDOW_SIZE", usual.stream_window, window),
        connection_window=reader.parsed("HTTP2_CONNECTION_WINDOW_SIZE", usual.connection_window, window),
        frame_size=reader.parsed("HTTP2_FRAME_SIZE", usual.frame_size, _within(_SMALLEST_FRAME, _LARGEST_FRAME)),
        pool_streams=reader.parsed("POOL_MAX_STREAMS_PER_CONNECTION", usual.pool_streams, integer(1, 65_535)),
        pool_idle_s=reader.parsed("POOL_UNUSED_RELEASE_TIMEOUT", usual.pool_idle_s, duration),
        keepalive=reader.parsed("KEEPALIVE_ENABLED", usual.keepalive, boolean),
        keepalive_idle_s=reader.parsed("KEEPALIVE_TIME", usual.keepalive_idle_s, _whole(seconds)),
        keepalive_interval_s=reader.parsed("KEEPALIVE_INTERVAL", usual.keepalive_interval_s, _whole(seconds)),
        keepalive_probes=reader.parsed("KEEPALIVE_RETRIES", usual.keepalive_probes, integer(1, 127)),
        user_timeout=reader.parsed("USER_TIMEOUT_ENABLED", usual.user_timeout, boolean),
        local_app_tunnel=reader.parsed("LOCALHOST_APP_TUNNEL", usual.local_app_tunnel, boolean),
        response_baggage=reader.parsed("ENABLE_RESPONSE_BAGGAGE", usual.response_baggage, boolean),
    )


def _within(least: int, most: int) -> Callable[[str], int]:
    def parse(raw: str) -> int:
        found = size(raw)
        if not least <= found <= most:
            raise ValueError(f"expected {least}..{most}")
        return found

    return parse


def _whole(parse: Callable[[str], int]) -> Callable[[str], int]:
    """Seconds as a duration, of which the kernel takes whole ones."""
    return lambda raw: parse(str(int(duration(raw))))
