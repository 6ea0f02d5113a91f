"""How an API server is reached and who we are there: its address, a TLS context, credentials that renew themselves."""

from __future__ import annotations

import os
import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final, Protocol

from ambient.errors import InvalidInput, Unavailable

ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
REREAD_S: Final = 30.0
"""A projected token is replaced on disk well before it expires."""


@dataclass(frozen=True, slots=True)
class Identity:
    """What one request is sent with. `context` None: plain HTTP (a proxy on this machine)."""

    headers: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    context: ssl.SSLContext | None = None


class Credentials(Protocol):
    """Who we are. `identity` may read files or run a program; `refused` is told of a 401: get new ones."""

    async def identity(self) -> Identity: ...

    def refused(self) -> None: ...


@dataclass(frozen=True, slots=True)
class ApiAccess:
    """`server` is a URL without a trailing slash; `namespace` the one we live in or that the context names."""

    server: str
    credentials: Credentials
    namespace: str = "default"
    proxy: str = ""
    server_name: str = ""


def tls_context(
    ca: bytes | None, *, where: str, certificate: bytes | None = None, key: bytes | None = None
) -> ssl.SSLContext:
    """A client's context that verifies against `ca` (PEM; None: the system's roots). Raises InvalidInput."""
    if ca is not None and not ca.strip():
        # The library would take that for "the system's roots".
        raise InvalidInput("not a certificate authority in PEM", where, "it is empty")
    try:
        context = ssl.create_default_context(cadata=ca.decode() if ca is not None else None)
    except (ssl.SSLError, ValueError) as error:
        raise InvalidInput("not a certificate authority in PEM", where, str(error)) from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if certificate is not None or key is not None:
        # ssl reads keys from files only; one that lives in memory leaves nothing behind.
        descriptor = os.memfd_create("client", os.MFD_CLOEXEC)
        try:
            os.write(descriptor, (certificate or b"") + b"\n" + (key or b""))
            context.load_cert_chain(f"/proc/self/fd/{descriptor}")
        except (ssl.SSLError, OSError) as error:
            raise InvalidInput("not a client certificate with its key in PEM", where, str(error)) from None
        finally:
            os.close(descriptor)
    return context


@dataclass(slots=True)
class FixedCredentials:
    """A certificate in the TLS context, a token that does not change, or nothing."""

    given: Identity

    async def identity(self) -> Identity:
        return self.given

    def refused(self) -> None:
        """There are no others."""


class TokenFile:
    """A bearer token in a file that somebody keeps fresh; read again now and then, and after a refusal. So is the
    authority's certificate, if it is in a file (`ca`)."""

    def __init__(
        self,
        path: Path,
        context: ssl.SSLContext | None,
        *,
        ca: Path | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._path = path
        self._context = context
        self._ca = ca
        self._ca_read = ca.read_bytes() if ca is not None else b""
        self._clock = clock
        self._identity: Identity | None = None
        self._read_at = 0.0

    async def identity(self) -> Identity:
        """Raises Unavailable when there is no token and none was read before."""
        if self._identity is None or self._clock() - self._read_at >= REREAD_S:
            self._follow_ca()
            try:
                token = self._path.read_text().strip()
            except (OSError, UnicodeDecodeError) as error:
                if self._identity is None:
                    raise Unavailable("no token for the Kubernetes API", str(self._path), str(error)) from None
            else:
                if token and token.isprintable():
                    self._identity = Identity({"Authorization": f"Bearer {token}"}, self._context)
                elif self._identity is None:
                    raise Unavailable("no token for the Kubernetes API", str(self._path), "the file holds no token")
            self._read_at = self._clock()
        return self._identity

    def refused(self) -> None:
        self._read_at = float("-inf")

    def _follow_ca(self) -> None:
        """A file that is not there or not whole for a moment leaves what was read before."""
        if self._ca is None:
            return
        with suppress(OSError, InvalidInput):
            read = self._ca.read_bytes()
            if read != self._ca_read:
                self._context = tls_context(read, where=str(self._ca))
                self._ca_read = read


def in_cluster(environment: Mapping[str, str], account: Path = ACCOUNT) -> ApiAccess | None:
    """The pod's own service account; None when this is no pod that has one. Raises InvalidInput."""
    host, port = environment.get("KUBERNETES_SERVICE_HOST", ""), environment.get("KUBERNETES_SERVICE_PORT", "443")
    if not host or not (account / "token").exists():
        return None
    try:
        ca = (account / "ca.crt").read_bytes()
    except OSError as error:
        raise InvalidInput("service account without its certificate authority", str(account), str(error)) from None
    try:
        namespace = (account / "namespace").read_text().strip() or "default"
    except OSError:
        namespace = "default"
    shown = f"[{host}]" if ":" in host else host
    context = tls_context(ca, where=str(account / "ca.crt"))
    return ApiAccess(f"https://{shown}:{port}", TokenFile(account / "token", context, ca=account / "ca.crt"), namespace)
