"""CreateCertificate over gRPC: token, request, entitlement, certificate; the log names who got or was refused what.

The decision is `ambient.ca`'s; this is the shell that knows time, the objects and the log.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from ambient.ca.csr import SigningRequest, parse_csr
from ambient.ca.entitle import NotEntitled, Tenancy, entitle
from ambient.ca.token import Caller
from ambient.control.access import Gate, peer_of
from ambient.control.issuers import Issuer
from ambient.control.metrics import ControlMetrics
from ambient.errors import InvalidInput, MeshError, Refused, Unavailable
from ambient.log import LogLimit
from ambient.model.identity import parse_identity
from ambient.xds.wire import message

MOST_WAITING: Final = 64
MOST_BYTES: Final = 64 * 1024
_SERVICE: Final = "istio.v1.auth.IstioCertificateService"
_CODES: Final = {
    InvalidInput: grpc.StatusCode.INVALID_ARGUMENT,
    Unavailable: grpc.StatusCode.UNAVAILABLE,
    Refused: grpc.StatusCode.PERMISSION_DENIED,
}

_log = logging.getLogger("ambient.control.certificates")


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A request as it came: `csr` in PEM, `ttl` (0 = not said), `signer` by name ("" = not said)."""

    request: SigningRequest
    csr: str
    ttl: timedelta
    signer: str


class Certificates:
    """The service. Call `tenancies_changed` when pods came or went."""

    def __init__(
        self,
        gate: Gate,
        issuer: Issuer,
        metrics: ControlMetrics,
        *,
        trust_domain: str,
        node_accounts: Collection[str],
        longest_ttl_s: float,
        patience_s: float,
        refused: Callable[[Caller, NotEntitled], None] = lambda caller, error: None,
    ) -> None:
        """`patience_s`: how long a request waits when its account has no pod on the node: the pod may be news that we
        have yet to read. `refused`: told of each identity that somebody may not have."""
        self._refused = refused
        self._gate = gate
        self._issuer = issuer
        self._metrics = metrics
        self._trust_domain = trust_domain
        self._node_accounts = frozenset(node_accounts)
        self._longest = timedelta(seconds=longest_ttl_s)
        self._tenancies: frozenset[Tenancy] = frozenset()
        self._news = asyncio.Condition()
        self._waiting = 0
        self._patience_s = patience_s
        self._loud = LogLimit(10)

    def handler(self) -> grpc.GenericRpcHandler[bytes, bytes]:
        """What to register with a grpc.aio server."""
        method = grpc.unary_unary_rpc_method_handler(self._serve, request_deserializer=None, response_serializer=None)
        return grpc.method_handlers_generic_handler(_SERVICE, {"CreateCertificate": method})

    async def tenancies_changed(self, tenancies: Collection[Tenancy]) -> None:
        """What runs where, from now on."""
        self._tenancies = frozenset(tenancies)
        async with self._news:
            self._news.notify_all()

    async def _serve(self, data: bytes, context: Any) -> bytes:
        self._metrics.csrs.inc()
        who = peer_of(context)
        try:
            caller = await self._gate.caller(context.invocation_metadata())
        except Refused as error:
            self._metrics.authentication_failures.inc()
            await self._abort(context, grpc.StatusCode.UNAUTHENTICATED, error, who)
            raise
        except Unavailable as error:
            await self._abort(context, grpc.StatusCode.UNAVAILABLE, error, who)
            raise
        who = f"{caller.name} ({who})"
        try:
            return await self._issue(caller, data)
        except NotEntitled as error:
            self._metrics.identity_refusals.labels(error.rule).inc()
            self._refused(caller, error)
            await self._abort(context, grpc.StatusCode.PERMISSION_DENIED, error, who)
            raise
        except MeshError as error:
            await self._abort(context, _CODES.get(type(error), grpc.StatusCode.INTERNAL), error, who)
            raise

    async def _issue(self, caller: Caller, data: bytes) -> bytes:
        wanted = self._parse(data)
        request = wanted.request
        await self._entitled(caller, request)
        issued = await self._issuer.issue(request, wanted.csr, wanted.ttl, wanted.signer)
        self._metrics.issued.inc()
        _log.info(
            "%s got a certificate for %s, serial %x, until %s",
            caller.name, request.identity, issued.serial, issued.not_after.isoformat(timespec="seconds"),
        )  # fmt: skip
        return bytes(message("istio.v1.auth.IstioCertificateResponse")(cert_chain=issued.chain).SerializeToString())

    def _parse(self, data: bytes) -> _Wanted:
        if len(data) > MOST_BYTES:
            raise InvalidInput("certificate request", why=f"{len(data)} bytes, at most {MOST_BYTES}")
        try:
            wire = message("istio.v1.auth.IstioCertificateRequest").FromString(data)
        except DecodeError:
            raise InvalidInput("certificate request", why="bytes are not that message") from None
        request = parse_csr(wire.csr)
        fields = wire.metadata.fields
        if "ImpersonatedIdentity" in fields:
            named = parse_identity(fields["ImpersonatedIdentity"].string_value)
            if named != request.identity:
                raise InvalidInput("certificate request", str(named), f"its CSR is for {request.identity}")
        seconds = min(max(wire.validity_duration, 0), int(self._longest.total_seconds()))
        signer = fields["CertSigner"].string_value if "CertSigner" in fields else ""
        return _Wanted(request, wire.csr, timedelta(seconds=seconds), signer)

    async def _entitled(self, caller: Caller, request: SigningRequest) -> None:
        """Raise Refused unless the caller may have the identity; wait a little for a pod that is not known yet."""
        identity = request.identity
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._patience_s
        while True:
            try:
                entitle(
                    caller,
                    identity,
                    tenancies=self._tenancies,
                    trust_domain=self._trust_domain,
                    node_accounts=self._node_accounts,
                )
            except NotEntitled as error:
                if error.rule != "node" or self._waiting >= MOST_WAITING or loop.time() >= deadline:
                    raise
                await self._next_news(deadline)
            else:
                return

    async def _next_news(self, deadline: float) -> None:
        self._waiting += 1
        try:
            async with asyncio.timeout_at(deadline), self._news:
                await self._news.wait()
        except TimeoutError:
            pass
        finally:
            self._waiting -= 1

    async def _abort(self, context: Any, code: grpc.StatusCode, error: MeshError, who: str) -> None:
        self._metrics.denied.labels("certificates", code.name).inc()
        if self._loud.allows(asyncio.get_running_loop().time()):
            _log.warning("refused %s a certificate: %s%s", who, error, self._loud.note())
        await context.abort(code, str(error))
