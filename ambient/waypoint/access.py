"""What Envoy writes of each request, connection and tunnel: one JSON object per line, which the agent beside it reads.

The lines are the access log, and all that Istio's metrics are counted from. No token is in them, only what one says.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from ambient.waypoint.front import Front
from ambient.waypoint.rbac_claims import JWT_FILTER, PAYLOAD
from ambient.waypoint.typed import Message, file_log

PEER: Final = "io.istio.peer_principal"
BAGGAGE: Final = "io.istio.source_baggage"
METADATA: Final = "ambient"
"""Namespace of our own metadata of endpoints."""
DRY_RUN: Final = "dry_run_{}_"
"""What names of verdicts of dry runs begin with, by action: each filter tells its own."""
TICK: Final = "15s"
"""How often the bytes of a connection that goes on are told."""


def http_log(front: Front) -> Message:
    """Of a request, when it is over."""
    return _of_service(
        front,
        log="http",
        **_REQUEST,
        content_type="%REQ(CONTENT-TYPE):64%",
        grpc_status="%GRPC_STATUS(NUMBER)%",
        wire_received="%DOWNSTREAM_WIRE_BYTES_RECEIVED%",
        wire_sent="%DOWNSTREAM_WIRE_BYTES_SENT%",
    )


def gateway_log(gateway: str, listeners: Iterable[str], *, proven: bool) -> Message:
    """Of a request to a gateway ("namespace/name"), when it is over. `proven`: somebody vouches for what its client's
    certificate says."""
    client = {"client_subject": "%DOWNSTREAM_PEER_SUBJECT%"} if proven else {}
    return _of_gateway(gateway, listeners, log="gateway", **client, **_REQUEST)


def gateway_tls_log(gateway: str, listeners: Iterable[str]) -> Message:
    """Of a connection that a gateway carries unread, when it is over."""
    return _of_gateway(gateway, listeners, log="gateway-tls")


def _tried(action: str) -> str:
    """The verdict of policies of an action that are dry runs: allowed or denied."""
    return f"%DYNAMIC_METADATA(envoy.filters.http.rbac:{DRY_RUN.format(action)}shadow_engine_result)%"


def tcp_log(front: Front) -> Message:
    """Of a connection that is no HTTP: when it is open, every `TICK`, and when it is over."""
    return _of_service(front, log="tcp", kind="%ACCESS_LOG_TYPE%", connection="%CONNECTION_ID%")


def tcp_log_options() -> Message:
    """When `tcp_log` is written, beside the end."""
    return {"flush_access_log_on_connected": True, "access_log_flush_interval": TICK}


def connect_log() -> Message:
    """Of a client's CONNECT, when its tunnel is over or was refused."""
    return file_log(
        log="connect",
        time="%START_TIME%",
        peer="%DOWNSTREAM_PEER_URI_SAN%",
        client="%DOWNSTREAM_REMOTE_ADDRESS%",
        target="%REQ(:AUTHORITY)%",
        status="%RESPONSE_CODE%",
        details="%RESPONSE_CODE_DETAILS%",
        flags="%RESPONSE_FLAGS%",
        received="%BYTES_RECEIVED%",
        sent="%BYTES_SENT%",
        duration_ms="%DURATION%",
    )


def failed_tunnel_log() -> Message:
    """Of a tunnel to an endpoint that could not be had; nothing of others."""
    made = file_log(
        log="tunnel",
        time="%START_TIME%",
        target="%DOWNSTREAM_LOCAL_ADDRESS%",
        peer="%UPSTREAM_PEER_URI_SAN%",
        flags="%RESPONSE_FLAGS%",
        failure="%UPSTREAM_TRANSPORT_FAILURE_REASON%",
    )
    return {**made, "filter": {"response_flag_filter": {}}}


def _of_service(front: Front, **more: str) -> Message:
    """What is told of every connection and request to a service, and `more`."""
    if front.exports is not None and front.exports.least:
        # All lines are counted; the agent that counts them leaves out of the log what is less.
        more["least"] = str(front.exports.least)
    return file_log(
        **_CARRIED,
        peer=f"%FILTER_STATE({PEER}:PLAIN)%",
        source=f"%FILTER_STATE({BAGGAGE}:PLAIN):1024%",
        # Workloads that are called by their own addresses are no service.
        service="" if front.unnamed else front.hostname,
        namespace="" if front.unnamed else front.namespace,
        destination="%UPSTREAM_METADATA(istio:workload)%",
        **more,
    )


def _of_gateway(gateway: str, listeners: Iterable[str], **more: str) -> Message:
    return file_log(
        **_CARRIED,
        peer="%DOWNSTREAM_DIRECT_REMOTE_ADDRESS%",
        gateway=gateway,
        listener=",".join(listeners),
        backend="%UPSTREAM_CLUSTER%",
        server_name="%REQUESTED_SERVER_NAME%",
        **more,
    )


def _claim(name: str) -> str:
    return f"%DYNAMIC_METADATA({JWT_FILTER}:{PAYLOAD}:{name}):256%"


_CARRIED: Final = {
    "time": "%START_TIME%",
    "client": "%DOWNSTREAM_REMOTE_ADDRESS%",
    "upstream": "%UPSTREAM_HOST%",
    "upstream_peer": f"%UPSTREAM_METADATA({METADATA}:san)%",
    "flags": "%RESPONSE_FLAGS%",
    "received": "%BYTES_RECEIVED%",
    "sent": "%BYTES_SENT%",
    "duration_ms": "%DURATION%",
}
"""Of whatever is carried to an endpoint."""
_REQUEST: Final = {
    "method": "%REQ(:METHOD)%",
    "path": "%PATH(NQ:ORIG_OR_PATH)%",
    "authority": "%REQ(:AUTHORITY)%",
    "protocol": "%PROTOCOL%",
    "status": "%RESPONSE_CODE%",
    "details": "%RESPONSE_CODE_DETAILS%",
    "dry_run_deny": _tried("deny"),
    "dry_run_allow": _tried("allow"),
    "token_issuer": _claim("iss"),
    "token_subject": _claim("sub"),
    "token_scope": _claim("scope"),
}
"""Of a request, wherever it comes from."""
