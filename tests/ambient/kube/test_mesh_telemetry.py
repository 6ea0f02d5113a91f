"""Providers of MeshConfig that are told of requests."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ambient.kube.mesh_config import MeshConfig, read_mesh_config
from ambient.kube.mesh_telemetry import Told

HOST = "collector.obs.svc.cluster.local"


def read(*providers: Any, **more: Any) -> MeshConfig:
    return read_mesh_config(json.dumps({"extensionProviders": list(providers), **more}), "test")


def test_collectors_and_the_log_are_read_by_name() -> None:
    there = {"service": HOST, "port": 4317}
    found = read(
        {"name": "spans", "opentelemetry": there},
        {"name": "old", "zipkin": {"service": f"obs/{HOST}", "port": 9411}},
        {"name": "logs", "envoyOtelAls": there},
        {"name": "file", "envoyFileAccessLog": {"path": "/dev/stdout"}},
        defaultProviders={"tracing": ["spans", "old"], "metrics": ["prometheus"]},
    )
    assert found.refused == ()
    assert found.providers == {}
    assert found.told == {
        "spans": Told("spans", "otlp", HOST, 4317),
        "old": Told("old", "zipkin", HOST, 9411),
        "logs": Told("logs", "otlp-log", HOST, 4317),
        "file": Told("file", "stdout"),
    }
    assert found.defaults == {"tracing": "spans"}


@pytest.mark.parametrize(
    ("provider", "field"),
    [
        ({"opentelemetry": {"service": HOST}}, "port"),
        ({"opentelemetry": {"service": "not a host", "port": 1}}, "service"),
        ({"opentelemetry": {"service": HOST, "port": 1, "http": {"path": "/"}}}, "http"),
        ({"zipkin": {"service": HOST, "port": 1, "maxTagLength": 3}}, "maxTagLength"),
        ({"envoyOtelAls": {"service": HOST, "port": 1, "logFormat": {}}}, "logFormat"),
        ({"envoyFileAccessLog": {"path": "/tmp/log"}}, "path"),
        ({"envoyFileAccessLog": {"logFormat": {"text": "x"}}}, "logFormat"),
    ],
)
def test_one_with_a_field_that_is_not_understood_is_none_and_named(provider: dict[str, Any], field: str) -> None:
    found = read({"name": "p", **provider})
    assert found.told == {}
    assert field in found.refused[0]


def test_defaults_that_are_none_take_nothing_else_away() -> None:
    found = read({"name": "file", "envoyFileAccessLog": {}}, defaultProviders={"tracing": "spans"})
    assert list(found.told) == ["file"]
    assert found.defaults == {}
    assert "defaultProviders.tracing" in found.refused[0]
