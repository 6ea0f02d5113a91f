"""Credentials from a program (client.authentication.k8s.io): run when needed, kept until they expire or are refused."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from ambient.errors import InvalidInput, Unavailable
from ambient.kube.api.access import Identity
from ambient.kube.read import Field, Object

VERSIONS: Final = ("client.authentication.k8s.io/v1", "client.authentication.k8s.io/v1beta1")
DEADLINE_S: Final = 30.0
_EARLY_S: Final = 10.0

MakeContext = Callable[[bytes | None, bytes | None], ssl.SSLContext | None]


class ExecPlugin:
    """One program. `context(certificate, key)` makes the TLS context for a certificate that it may give."""

    def __init__(self, command: list[str], environment: Mapping[str, str], version: str, context: MakeContext) -> None:
        self._command = command
        self._environment = dict(environment)
        self._version = version
        self._context = context
        self._identity: Identity | None = None
        self._expires_unix = float("inf")
        self._running = asyncio.Lock()

    @classmethod
    def read(
        cls,
        entry: Object,
        context: MakeContext,
        *,
        server: str,
        ca: bytes | None,
        home: Path,
        environment: Mapping[str, str],
    ) -> ExecPlugin:
        """From the `exec` of a kubeconfig user. Raises InvalidInput."""
        version = entry.need("apiVersion").one_of(VERSIONS)
        if entry.text("interactiveMode", "IfAvailable") == "Always":
            raise entry.need("interactiveMode").refuse("a service has no terminal")
        command = entry.need("command").text()
        if "/" in command:
            command = str(home / command)
        extra = {item.need("name").text(): item.text("value") for item in entry.each("env", Field.open_object)}
        spec: dict[str, Any] = {"interactive": False}
        if entry.flag("provideClusterInfo"):
            spec["cluster"] = {"server": server}
            if ca is not None:
                spec["cluster"]["certificate-authority-data"] = base64.b64encode(ca).decode()
        info = json.dumps({"apiVersion": version, "kind": "ExecCredential", "spec": spec})
        return cls(
            [command, *entry.texts("args")],
            {**environment, **extra, "KUBERNETES_EXEC_INFO": info},
            version,
            context,
        )

    async def identity(self) -> Identity:
        """Raises Unavailable when the program fails."""
        async with self._running:
            if self._identity is None or time.time() > self._expires_unix - _EARLY_S:
                self._identity = self._read(await self._run())
            return self._identity

    def refused(self) -> None:
        self._identity = None

    async def _run(self) -> bytes:
        try:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                env=self._environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        except OSError as error:
            raise Unavailable("credentials for the Kubernetes API", self._command[0], str(error)) from None
        try:
            async with asyncio.timeout(DEADLINE_S):
                out, err = await process.communicate()
        except TimeoutError:
            raise Unavailable(
                "credentials for the Kubernetes API", self._command[0], f"not done within {DEADLINE_S:g} s"
            ) from None
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        if process.returncode:
            why = " ".join(err[-300:].decode("utf-8", "replace").split()) or f"exit status {process.returncode}"
            raise Unavailable("credentials for the Kubernetes API", self._command[0], why)
        return out

    def _read(self, out: bytes) -> Identity:
        try:
            top = Field(json.loads(out), "", self._command[0]).open_object()
            top.need("apiVersion").one_of((self._version,))
            status = top.need("status").open_object()
            token = status.text("token")
            certificate, key = status.text("clientCertificateData"), status.text("clientKeyData")
            if not token and not (certificate and key):
                raise status.at.refuse("neither a token nor a certificate with its key")
            expires = status.text("expirationTimestamp")
            self._expires_unix = datetime.fromisoformat(expires).timestamp() if expires else float("inf")
            context = self._context(certificate.encode() or None, key.encode() or None)
        except (ValueError, InvalidInput) as error:
            raise Unavailable("credentials for the Kubernetes API", self._command[0], str(error)) from None
        return Identity({"Authorization": f"Bearer {token}"} if token else {}, context)
