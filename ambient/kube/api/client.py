"""A small asynchronous client of the Kubernetes API: JSON in, JSON out, every failure an error of ours.

    async with ApiClient.open(os.environ) as api:
        pod = await api.get(PODS, "client", "shop")
        await api.patch(PODS, "client", {"metadata": {"labels": {"a": "b"}}}, namespace="shop")

Connections are kept and shared; a request that gets no answer ends after `timeout_s`. Nothing is retried here:
whether a request may be sent twice is for the caller to know (`ApiUnavailable.uncertain`).
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import weakref
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from types import TracebackType
from typing import Any, Final, Literal, Self

import aiohttp
import msgspec

from ambient.kube.api.access import ApiAccess, Identity
from ambient.kube.api.failure import failure, unreachable
from ambient.kube.api.kubeconfig import find_access
from ambient.kube.resource import Resource

FIELD_MANAGER: Final = "ambient"
TIMEOUT_S: Final = 15.0
CONNECT_S: Final = 5.0
LARGEST_ANSWER: Final = 64 << 20
_ERROR_BODY: Final = 64 << 10
_TURNS: Final = 100
"""Of the loop, more than it takes to close connections that are shut down."""

_FORMS: Final = {
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
    "apply": "application/apply-patch+yaml",
    "strategic": "application/strategic-merge-patch+json",
}


class ApiClient:
    """One API server. Use inside one event loop; `close` (or `async with`) when done."""

    def __init__(self, access: ApiAccess, *, timeout_s: float = TIMEOUT_S, agent: str = "ambient") -> None:
        self.access = access
        self._timeout_s = timeout_s
        self._agent = agent
        self._session: aiohttp.ClientSession | None = None
        self._sockets: weakref.WeakSet[socket.socket] = weakref.WeakSet()

    @classmethod
    def open(cls, environment: Mapping[str, str], *, context: str = "", timeout_s: float = TIMEOUT_S) -> ApiClient:
        """The server that KUBECONFIG, the pod's service account or ~/.kube/config names. Does not connect yet.

        Raises InvalidInput.
        """
        return cls(find_access(environment, context=context), timeout_s=timeout_s)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """End every connection."""
        if self._session is None:
            return
        await self._session.close()
        self._session = None
        # Where requests were given up the library says TLS' farewell and leaves the connection to the loop, where it
        # would wait for the server's beyond the loop's end.
        for sock in self._sockets:
            with suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for _ in range(_TURNS):
            if all(sock.fileno() < 0 for sock in self._sockets):
                return
            await asyncio.sleep(0)

    # --- objects

    async def get(self, resource: Resource, name: str, namespace: str = "", *, subresource: str = "") -> dict[str, Any]:
        """One object. Raises NotThere, Forbidden, ApiUnavailable."""
        return await self.call("GET", resource.path(namespace, name, subresource))

    async def list(
        self,
        resource: Resource,
        namespace: str = "",
        *,
        labels: str = "",
        fields: str = "",
        limit: int = 0,
        page: str = "",
    ) -> dict[str, Any]:
        """A list object: `items`, and in `metadata.continue` what to give as `page` for the next `limit` of them."""
        query = {"labelSelector": labels, "fieldSelector": fields, "continue": page, "limit": str(limit or "")}
        return await self.call("GET", resource.path(namespace), query=query)

    async def create(
        self, resource: Resource, body: Mapping[str, Any], namespace: str = "", *, name: str = "", subresource: str = ""
    ) -> dict[str, Any]:
        """Make an object (or a sub-resource of `name`, a review, a token request). Raises Conflict when it is there."""
        query = {"fieldManager": FIELD_MANAGER}
        return await self.call("POST", resource.path(namespace, name, subresource), body=body, query=query)

    async def replace(
        self, resource: Resource, name: str, body: Mapping[str, Any], namespace: str = "", *, subresource: str = ""
    ) -> dict[str, Any]:
        """Put an object as it is to be. With metadata.resourceVersion in it: raises Conflict when it has changed."""
        query = {"fieldManager": FIELD_MANAGER}
        return await self.call("PUT", resource.path(namespace, name, subresource), body=body, query=query)

    async def patch(
        self,
        resource: Resource,
        name: str,
        body: Any,
        namespace: str = "",
        *,
        form: Literal["merge", "json", "apply", "strategic"] = "merge",
        subresource: str = "",
        manager: str = FIELD_MANAGER,
        force: bool = False,
    ) -> dict[str, Any]:
        """Change an object in part. "apply" is server-side apply (makes it when it is not there); `force` takes over
        fields of other managers. With metadata.resourceVersion in `body`: raises Conflict when it has changed."""
        query = {"fieldManager": manager, "force": "true" if force and form == "apply" else ""}
        path = resource.path(namespace, name, subresource)
        return await self.call("PATCH", path, body=body, query=query, content=_FORMS[form])

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str = "",
        *,
        uid: str = "",
        propagation: Literal["", "Background", "Foreground", "Orphan"] = "",
        grace_s: int | None = None,
    ) -> None:
        """Raises NotThere; with `uid` Conflict when it is another object of that name by now."""
        body: dict[str, Any] = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if uid:
            body["preconditions"] = {"uid": uid}
        if propagation:
            body["propagationPolicy"] = propagation
        if grace_s is not None:
            body["gracePeriodSeconds"] = grace_s
        await self.call("DELETE", resource.path(namespace, name), body=body)

    # --- requests

    async def call(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        query: Mapping[str, str] | None = None,
        content: str = "application/json",
    ) -> dict[str, Any]:
        """One request, its answer decoded. Parameters of `query` that are "" are left out."""
        data = await self.fetch(method, path, body=body, query=query, content=content)
        try:
            value = msgspec.json.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise unreachable(f"{method} {path}", f"the answer is not JSON: {error}") from None
        if not isinstance(value, dict):
            raise unreachable(f"{method} {path}", "the answer is not an object")
        return value

    async def fetch(
        self,
        method: str,
        path: str,
        *,
        body: Any = None,
        query: Mapping[str, str] | None = None,
        content: str = "application/json",
    ) -> bytes:
        """One request, its answer as it came."""
        data = None if body is None else msgspec.json.encode(body)
        limits = aiohttp.ClientTimeout(total=self._timeout_s, sock_connect=CONNECT_S)
        parts: list[bytes] = []
        size = 0
        async with self._request(method, path, data, query, limits, content) as response:
            async for part in response.content.iter_any():
                parts.append(part)
                size += len(part)
                if size > LARGEST_ANSWER:
                    raise unreachable(f"{method} {path}", f"the answer is longer than {LARGEST_ANSWER} bytes")
        return b"".join(parts)

    @asynccontextmanager
    async def stream(self, path: str, *, query: Mapping[str, str]) -> AsyncGenerator[aiohttp.StreamReader, None]:
        """The body of a GET that goes on (a watch). How long it may say nothing is for the reader to decide; what
        breaks it raises ApiUnavailable where the body is read."""
        limits = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_S)
        opened = False
        try:
            async with asyncio.timeout(self._timeout_s) as deadline:
                async with self._request("GET", path, None, query, limits, "application/json") as response:
                    deadline.reschedule(None)
                    opened = True
                    try:
                        yield response.content
                    finally:
                        _leave(response)
        except TimeoutError:
            if opened:
                raise
            raise unreachable(f"GET {path}", "no answer in time") from None

    @asynccontextmanager
    async def websocket(
        self, path: str, *, query: Mapping[str, str], protocol: str
    ) -> AsyncGenerator[aiohttp.ClientWebSocketResponse, None]:
        """A WebSocket that speaks `protocol` (port-forward, exec). Raises as the other requests do."""
        request = f"GET {path}"
        identity = await self.access.credentials.identity()
        try:
            async with self._opened().ws_connect(
                self.access.server + path,
                params=dict(query),
                protocols=(protocol,),
                headers={**self._headers(identity, ""), "Accept": "*/*"},
                ssl=identity.context if identity.context is not None else True,
                server_hostname=self.access.server_name or None,
                proxy=self.access.proxy or None,
                max_msg_size=0,
            ) as connection:
                if connection.protocol != protocol:
                    raise unreachable(request, f"the server does not speak {protocol}")
                yield connection
        except aiohttp.WSServerHandshakeError as error:
            if error.status == 401:
                self.access.credentials.refused()
            raise failure(error.status, request, b"") from None
        except aiohttp.ClientError as error:
            raise unreachable(request, f"{type(error).__name__}: {error}", uncertain=False) from None

    @asynccontextmanager
    async def _request(
        self,
        method: str,
        path: str,
        data: bytes | None,
        query: Mapping[str, str] | None,
        limits: aiohttp.ClientTimeout,
        content: str,
    ) -> AsyncGenerator[aiohttp.ClientResponse, None]:
        request = f"{method} {path}"
        identity = await self.access.credentials.identity()
        try:
            async with self._opened().request(
                method,
                self.access.server + path,
                params={name: value for name, value in (query or {}).items() if value},
                data=data,
                headers=self._headers(identity, content if data is not None else ""),
                ssl=identity.context if identity.context is not None else True,
                server_hostname=self.access.server_name or None,
                proxy=self.access.proxy or None,
                timeout=limits,
                allow_redirects=False,
            ) as response:
                if response.status >= 300:
                    body = await response.content.read(_ERROR_BODY)
                    if response.status == 401:
                        self.access.credentials.refused()
                    raise failure(response.status, request, body, retry_after=response.headers.get("Retry-After", ""))
                yield response
        except aiohttp.ClientConnectorError as error:
            raise unreachable(request, _why_not_connected(error), uncertain=False) from None
        except aiohttp.ClientError as error:
            raise unreachable(request, f"{type(error).__name__}: {error}") from None
        except TimeoutError:
            raise unreachable(request, "no answer in time") from None

    def _headers(self, identity: Identity, content: str) -> dict[str, str]:
        headers = {"Accept": "application/json", "User-Agent": self._agent, **identity.headers}
        if content:
            headers["Content-Type"] = content
        return headers

    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None or self._session.closed:
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=60, socket_factory=self._socket)
            self._session = aiohttp.ClientSession(
                connector=connector, auto_decompress=True, read_bufsize=1 << 18, cookie_jar=aiohttp.DummyCookieJar()
            )
        return self._session

    def _socket(self, address: aiohttp.AddrInfoType) -> socket.socket:
        made = _socket(address)
        self._sockets.add(made)
        return made


def _why_not_connected(error: aiohttp.ClientConnectorError) -> str:
    """Without the objects that the library shows; what TLS found wrong is in the text of its error."""
    found = error.os_error
    if isinstance(found, ssl.SSLError):
        text = str(found)
    elif found.errno is not None and found.errno > 0:
        text = os.strerror(found.errno)
    else:
        text = found.strerror or str(found)
    return f"{error.host}:{error.port}: {text}"


def _leave(response: aiohttp.ClientResponse) -> None:
    """End a connection in the middle of an answer: there is no point in TLS' farewell, nobody waits for its answer."""
    if response.connection is not None and response.connection.transport is not None:
        response.connection.transport.abort()


def _socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """A socket that notices within half a minute when the other machine is gone without a word."""
    family, kind, protocol, _, _ = address
    made = socket.socket(family, kind, protocol)
    made.setblocking(False)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        (socket.TCP_KEEPIDLE, 10),
        (socket.TCP_KEEPINTVL, 5),
        (socket.TCP_KEEPCNT, 3),
        (socket.TCP_USER_TIMEOUT, 25_000),
    ):
        made.setsockopt(socket.IPPROTO_TCP, option, value)
    return made
