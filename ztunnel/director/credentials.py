"""How this process proves who it is to the control plane: CA file, bearer token read anew, request metadata."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

import grpc
import grpc.aio

from ambient.errors import Unavailable

CHANNEL_OPTIONS: Final = (
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", 200 << 20),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 2_000),
)


def read_token(setting: str) -> str:
    """The bearer token: the content of the file `setting`, or `setting` itself when it looks like a token.

    Read for each request, because kubelet replaces projected tokens. Raises Unavailable.
    """
    if "/" not in setting and setting.count(".") == 2:
        return setting
    try:
        token = Path(setting).read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise Unavailable("no token", setting, str(error)) from None
    if not token:
        raise Unavailable("no token", setting, "the file is empty")
    return token


def read_roots(setting: str) -> bytes:
    """PEM of the roots that the control plane is verified with: a file, or the PEM itself. Raises Unavailable."""
    if setting.startswith("-----BEGIN"):
        return setting.encode()
    try:
        return Path(setting).read_bytes()
    except OSError as error:
        raise Unavailable("no root certificate", setting, str(error)) from None


async def open_channel(address: str, roots: str, name: str) -> grpc.aio.Channel:
    """A channel to `https://host:port` (TLS, verified) or `http://host:port`. Raises Unavailable (files).

    `name`: the name the certificate must have, "" = the host of the address.
    """
    scheme, _, target = address.partition("://")
    options = [*CHANNEL_OPTIONS, *([("grpc.ssl_target_name_override", name)] if name else [])]
    if scheme == "http":
        return grpc.aio.insecure_channel(target, options)
    pem = await asyncio.to_thread(read_roots, roots)
    return grpc.aio.secure_channel(target, grpc.ssl_channel_credentials(pem), options)


def metadata(token: str, cluster: str) -> tuple[tuple[str, str], ...]:
    """Request metadata of both services."""
    return (("authorization", f"Bearer {token}"), ("clusterid", cluster))
