"""OpenTelemetry's variables: what they mean, and what is refused by name."""

from __future__ import annotations

import pytest

from ambient.errors import InvalidInput
from ztunnel.director.tracing import Tracing, read_tracing

ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318/"}


def read(env: dict[str, str]) -> Tracing | None:
    return read_tracing(env, node="n1", pod="ztunnel-x")


@pytest.mark.parametrize(
    "env",
    [
        {},
        ENDPOINT | {"OTEL_SDK_DISABLED": "true"},
        ENDPOINT | {"OTEL_TRACES_EXPORTER": "none"},
        {"OTEL_SERVICE_NAME": "z"},
    ],
)
def test_nothing_is_exported_unless_asked_for(env: dict[str, str]) -> None:
    assert read(env) is None


def test_the_defaults_are_the_specifications() -> None:
    named = (("service.name", "ztunnel"), ("k8s.node.name", "n1"), ("k8s.pod.name", "ztunnel-x"))
    assert read(ENDPOINT) == Tracing(url="http://collector:4318/v1/traces", resource=named)


def test_every_variable_counts_and_those_of_traces_before_the_general_ones() -> None:
    found = read(
        {
            "OTEL_EXPORTER_OTLP_ENDPOINT": "http://other",
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "https://collector/custom",
            "OTEL_EXPORTER_OTLP_HEADERS": "x=1",
            "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "authorization=Bearer%20abc,tenant=t",
            "OTEL_EXPORTER_OTLP_TIMEOUT": "500",
            "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
            "OTEL_EXPORTER_OTLP_CERTIFICATE": "/ca.pem",
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/json",
            "OTEL_TRACES_SAMPLER": "traceidratio",
            "OTEL_TRACES_SAMPLER_ARG": "0.25",
            "OTEL_BSP_MAX_QUEUE_SIZE": "10",
            "OTEL_BSP_MAX_EXPORT_BATCH_SIZE": "5",
            "OTEL_BSP_SCHEDULE_DELAY": "250",
            "OTEL_SERVICE_NAME": "mesh",
            "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment=prod,service.name=no",
        }
    )
    assert found == Tracing(
        url="https://collector/custom",
        headers=(("authorization", "Bearer abc"), ("tenant", "t")),
        ca_file="/ca.pem",
        timeout_s=0.5,
        gzip=True,
        ratio=0.25,
        queue=10,
        batch=5,
        delay_s=0.25,
        resource=(
            ("deployment.environment", "prod"),
            ("service.name", "mesh"),
            ("k8s.node.name", "n1"),
            ("k8s.pod.name", "ztunnel-x"),
        ),
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4317"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "grpc://collector"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "token"),
        ("OTEL_EXPORTER_OTLP_HEADERS", "a=b%0d%0ac"),
        ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
        ("OTEL_TRACES_SAMPLER_ARG", "2"),
        ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
        ("OTEL_RESOURCE_ATTRIBUTES", "x"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_by_name(name: str, value: str) -> None:
    with pytest.raises(InvalidInput, match=name):
        read({**ENDPOINT, "OTEL_TRACES_SAMPLER": "traceidratio", name: value})
