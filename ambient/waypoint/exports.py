"""Where a waypoint's spans and access log are sent to: read from its Gateway's annotations, and as Envoy's. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from ambient.errors import InvalidInput
from ambient.kube.telemetry_values import SpanTag
from ambient.waypoint.typed import Message, any_of, http_protocol, typed

TRACING: Final = "ambient.mesh/tracing"
"""Annotation of a Gateway: "otlp HOST:PORT [SHARE%]" or "zipkin HOST:PORT [SHARE%]"."""
ACCESS_LOG: Final = "ambient.mesh/access-log"
"""Annotation of a Gateway: "otlp HOST:PORT", beside the log of its pods."""
_FORM: Final = re.compile(
    r"(otlp|zipkin) (\[[0-9a-f:]+\]|[a-z0-9][a-z0-9.-]{0,252}):([1-9][0-9]{0,4})(?: ([0-9.]{1,9})%)?"
)
NO_LOG: Final = 1000
"""Higher than any status."""
_USUAL: Final = 1.0


@dataclass(frozen=True, slots=True)
class Collector:
    """Speaks `protocol` (otlp: by gRPC) in plain text. `percent`: of the traces that begin here."""

    protocol: str
    host: str
    port: int
    percent: float = _USUAL

    @property
    def cluster(self) -> str:
        return f"collector|{self.protocol}|{self.port}|{self.host}"


@dataclass(frozen=True, slots=True)
class Exports:
    """`tags`: more of each span. `least`: what has a lower status than this is in no log; metrics count it."""

    spans: Collector | None = None
    logs: Collector | None = None
    tags: tuple[SpanTag, ...] = ()
    least: int = 0


NO_EXPORTS: Final = Exports()


def read_exports(annotations: Mapping[str, str]) -> tuple[Exports, Mapping[str, str]]:
    """What is asked for, and what could not be read of it, by annotation."""
    found: dict[str, Collector | None] = {}
    unread: dict[str, str] = {}
    for name, protocols in ((TRACING, ("otlp", "zipkin")), (ACCESS_LOG, ("otlp",))):
        try:
            found[name] = _collector(annotations[name].strip(), name, protocols) if name in annotations else None
        except InvalidInput as error:
            found[name], unread[name] = None, str(error)
    return Exports(found[TRACING], found[ACCESS_LOG]), unread


def _collector(text: str, name: str, protocols: tuple[str, ...]) -> Collector:
    form = _FORM.fullmatch(text)
    refused = InvalidInput("annotation", name, f'{text[:80]!r}: expected "{"|".join(protocols)} HOST:PORT [SHARE%]"')
    if form is None or form[1] not in protocols or int(form[3]) > 65535:
        raise refused
    try:
        percent = float(form[4]) if form[4] else _USUAL
    except ValueError:
        raise refused from None
    if percent > 100:
        raise refused
    return Collector(form[1], form[2].strip("[]"), int(form[3]), percent)


def tracing(exports: Exports, service: str, peer: str) -> Message:
    """The field of a connection manager; {} where nobody asks. `peer`: a format that says who calls. Where he has a
    trace already, he has decided whether it is kept."""
    spans = exports.spans
    if spans is None:
        return {}
    return {
        "tracing": {
            "provider": _otlp(spans, service) if spans.protocol == "otlp" else _zipkin(spans),
            "random_sampling": {"value": spans.percent},
            "spawn_upstream_span": True,
            "custom_tags": [{"tag": "source.principal", "value": peer}, *map(_tag, exports.tags)],
        }
    }


def _tag(one: SpanTag) -> Message:
    if one.kind == "literal":
        return {"tag": one.name, "literal": {"value": one.value}}
    return {"tag": one.name, "request_header": {"name": one.value, "default_value": one.default}}


def _otlp(spans: Collector, service: str) -> Message:
    config = any_of("envoy.config.trace.v3.OpenTelemetryConfig", grpc_service=_grpc(spans), service_name=service)
    return {"name": "envoy.tracers.opentelemetry", "typed_config": config}


def _zipkin(spans: Collector) -> Message:
    config = any_of(
        "envoy.config.trace.v3.ZipkinConfig",
        collector_cluster=spans.cluster,
        collector_endpoint="/api/v2/spans",
        collector_hostname=spans.host,
        collector_endpoint_version="HTTP_JSON",
        trace_id_128bit=True,
        shared_span_context=False,
        trace_context_option="USE_B3_WITH_W3C_PROPAGATION",
    )
    return {"name": "envoy.tracers.zipkin", "typed_config": config}


def exported_log(exports: Exports, log: Message) -> list[Message]:
    """What sends the fields of a line of JSON as attributes of a log record; [] where nobody asks."""
    if exports.logs is None:
        return []
    fields = log["typed_config"]["log_format"]["json_format"]
    filtered = {}
    if exports.least:
        comparison = {"op": "GE", "value": {"default_value": exports.least, "runtime_key": "ambient.least_status"}}
        filtered = {"filter": {"status_code_filter": {"comparison": comparison}}}
    return [
        filtered
        | typed(
            "envoy.access_loggers.open_telemetry",
            "access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig",
            common_config={
                "log_name": fields["log"],
                "grpc_service": _grpc(exports.logs),
                "transport_api_version": "V3",
            },
            body={"string_value": f"{fields.get('method', fields['log'])} {fields.get('status', fields['flags'])}"},
            attributes={"values": [{"key": key, "value": {"string_value": text}} for key, text in fields.items()]},
        )
    ]


def collectors(*several: Exports) -> Iterator[Message]:
    """Clusters, each once."""
    found = (one for exports in several for one in (exports.spans, exports.logs) if one is not None)
    yield from {one.cluster: _cluster(one) for one in found}.values()


def _cluster(one: Collector) -> Message:
    endpoint = {"endpoint": {"address": {"socket_address": {"address": one.host, "port_value": one.port}}}}
    made: Message = {
        "name": one.cluster,
        "type": "STATIC" if _is_address(one.host) else "STRICT_DNS",
        "connect_timeout": "1s",
        "load_assignment": {"cluster_name": one.cluster, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
    if one.protocol == "otlp":
        made |= http_protocol(explicit_http_config={"http2_protocol_options": {}})
    return made


def _grpc(one: Collector) -> Message:
    return {"envoy_grpc": {"cluster_name": one.cluster}, "timeout": "1s"}


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
