"""Secure gRPC channels to a control plane, the metadata that authenticates us, their failures in our terms.

The root file and the token file are read for every channel and every call: both are replaced while we run, and
`root_changed` tells when a channel that is open should be made anew. Failures come out as Unavailable (try again) or
Refused (the server will not), with the server's own words. gRPC is imported with the first channel: ztunnel has better
to do before.
"""

from __future__ import annotations

import asyncio
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ambient.errors import MeshError, Refused, Unavailable

if TYPE_CHECKING:
    import grpc.aio

MOST_BYTES: Final = 200 << 20
CONNECT_TIMEOUT_S: Final = 5.0
PROBE_TIMEOUT_S: Final = 2.0
ROOT_LOOK_S: Final = 2.0
SYSTEM_ROOTS: Final = "SYSTEM"

_OPTIONS: Final = (
    ("grpc.max_receive_message_length", MOST_BYTES),
    ("grpc.max_send_message_length", MOST_BYTES),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.keepalive_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.enable_http_proxy", 0),
    ("grpc.enable_retries", 0),
    # Without these, gRPC's own pauses (1 s and more) come on top of ours and outlive the channel.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 50),
)
_REFUSALS: Final = frozenset({"UNAUTHENTICATED", "PERMISSION_DENIED", "INVALID_ARGUMENT", "UNIMPLEMENTED"})


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """Where a control plane is and how we prove who we are.

    `target` is host:port, `root` a PEM file, PEM itself, or SYSTEM for the machine's own roots; `token` a file with a
    bearer token, or the token itself as text (None: no token); `hostname` the name to verify in the server's
    certificate instead of the target's; `headers` are sent with every call. `plaintext`: no TLS, for debugging only
    (no token is sent then).
    """

    target: str
    root: Path | str
    token: Path | str | None = None
    hostname: str = ""
    cluster: str = "Kubernetes"
    headers: tuple[tuple[str, str], ...] = ()
    plaintext: bool = False


def _root_file(root: Path | str) -> Path | None:
    """The file the root is in; None: it is in no file."""
    if isinstance(root, Path):
        return root
    if root == SYSTEM_ROOTS:
        paths = ssl.get_default_verify_paths()
        return Path(paths.cafile or paths.openssl_cafile)
    return None


def _read_root(root: Path | str) -> bytes:
    file = _root_file(root)
    try:
        pem = str(root).encode() if file is None else file.read_bytes()
    except OSError as error:
        raise Unavailable("root certificate", str(file), error.strerror or str(error)) from None
    if b"-----BEGIN" not in pem:
        # Given nothing, gRPC trusts every public authority instead of nobody.
        raise Unavailable("root certificate", str(file or "setting"), "there is no certificate in it")
    return pem


async def root_changed(root: Path | str, look_s: float = ROOT_LOOK_S) -> None:
    """Return when the content of the root's file differs from what it is now; never, when it is in no file."""
    file = _root_file(root)
    if file is None:
        await asyncio.get_running_loop().create_future()
        return
    before = _content(file)
    while True:
        await asyncio.sleep(look_s)
        now = _content(file)
        # A file that is away is about to be replaced; what is open goes on with what it knows.
        if now and now != before:
            return


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""


def open_channel(settings: ServerSettings) -> grpc.aio.Channel:
    """A channel that verifies the server with the root as it is now. Raises Unavailable when that cannot be read."""
    import grpc.aio

    options = [*_OPTIONS]
    if settings.plaintext:
        return grpc.aio.insecure_channel(settings.target, options=options)
    root = _read_root(settings.root)
    if settings.hostname:
        options.append(("grpc.ssl_target_name_override", settings.hostname))  # type: ignore[arg-type]
    return grpc.aio.secure_channel(settings.target, grpc.ssl_channel_credentials(root), options=options)


async def connected(channel: grpc.aio.Channel, target: str, timeout_s: float = CONNECT_TIMEOUT_S) -> None:
    """Wait until the channel is up; raises Unavailable on the first failure instead of waiting for gRPC's retries."""
    from grpc import ChannelConnectivity

    try:
        async with asyncio.timeout(timeout_s):
            state = channel.get_state(try_to_connect=True)
            while state is not ChannelConnectivity.READY:
                if state in (ChannelConnectivity.TRANSIENT_FAILURE, ChannelConnectivity.SHUTDOWN):
                    raise Unavailable("no connection", target, await _why_not(target))
                await channel.wait_for_state_change(state)
                state = channel.get_state(try_to_connect=True)
    except TimeoutError:
        raise Unavailable("no connection", target, f"no answer within {timeout_s:g} s") from None


async def _why_not(target: str) -> str:
    """What gRPC does not tell: a plain TCP connection to the same place shows whether anybody is there."""
    host, _, port = target.rpartition(":")
    try:
        async with asyncio.timeout(PROBE_TIMEOUT_S):
            _, writer = await asyncio.open_connection(host.strip("[]"), int(port))
    except ConnectionRefusedError:
        return "refused: nobody listens there"
    except TimeoutError:
        return f"unreachable: no answer within {PROBE_TIMEOUT_S:g} s"
    except (OSError, ValueError) as error:
        return f"unreachable: {getattr(error, 'strerror', '') or error}"
    writer.transport.abort()
    return "it can be reached, but its certificate is not trusted, or it does not speak TLS"


def call_metadata(settings: ServerSettings) -> list[tuple[str, str]]:
    """Authentication of one call, with the token as it is now. Raises Unavailable when the file cannot be read."""
    metadata = [("clusterid", settings.cluster), *settings.headers]
    if settings.token is not None and not settings.plaintext:
        metadata.append(("authorization", f"Bearer {_read_token(settings.token)}"))
    return metadata


def _read_token(token: Path | str) -> str:
    if isinstance(token, str):
        return token
    try:
        return token.read_text().strip()
    except OSError as error:
        raise Unavailable("token", str(token), error.strerror or str(error)) from None
    except ValueError:
        raise Unavailable("token", str(token), "it is no text") from None


def as_mesh_error(error: grpc.aio.AioRpcError, what: str, where: str) -> MeshError:
    """The error of a call in our terms."""
    kind = Refused if error.code().name in _REFUSALS else Unavailable
    return kind(what, where, f"{error.code().name}: {error.details() or 'no details'}")
