"""Telemetry: what is read of it, and that whatever a waypoint does not do is refused by its name."""

from __future__ import annotations

from typing import Any

import pytest

from ambient.errors import InvalidInput
from ambient.kube.objects import Telemetry, parse_object
from ambient.kube.policies import TargetRef
from ambient.kube.telemetry_values import Logging, SpanTag, Tracing
from tests.support.builders import raw


def read(**spec: Any) -> Telemetry:
    made = raw("Telemetry", "t", spec, namespace="shop")
    record = parse_object({**made, "apiVersion": "telemetry.istio.io/v1"}, "test")
    assert isinstance(record, Telemetry)
    return record


def test_what_is_not_said_is_said_elsewhere() -> None:
    assert read() == read(tracing=[], accessLogging=[])
    assert read(tracing=[{}]).tracing == Tracing()
    assert read(accessLogging=[{}]).logging == Logging()


def test_what_is_read_of_tracing() -> None:
    tags = {"env": {"literal": {"value": "prod"}}, "team": {"header": {"name": "x-team", "defaultValue": "none"}}}
    said = {"providers": [{"name": "otel"}], "randomSamplingPercentage": 12.5, "disableSpanReporting": False}
    found = read(tracing=[{**said, "customTags": tags, "match": {"mode": "CLIENT_AND_SERVER"}}]).tracing
    spans = (SpanTag("env", "literal", "prod"), SpanTag("team", "header", "x-team", "none"))
    assert found == Tracing("otel", 12.5, False, spans)


@pytest.mark.parametrize(
    ("expression", "least"),
    [
        ("response.code >= 400", 400),
        ("response.code>=500", 500),
        ("response.code > 399", 400),
        ("has(response.code) && response.code >= 400", 400),
    ],
)
def test_what_is_read_of_logging(expression: str, least: int) -> None:
    said = {"providers": [{"name": "file"}], "disabled": False, "filter": {"expression": expression}}
    assert read(accessLogging=[said]).logging == Logging("file", False, least)


def test_what_it_is_for() -> None:
    ref = {"group": "", "kind": "Service", "name": "web"}
    assert read(targetRefs=[ref]).target_refs == (TargetRef("", "Service", "web"),)
    assert read(selector={"matchLabels": {"app": "web"}}).selector == {"app": "web"}


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"metrics": [{"providers": [{"name": "prometheus"}]}]}, "spec.metrics"),
        ({"tracing": [{}, {}]}, "spec.tracing[1]"),
        ({"tracing": [{"match": {"mode": "CLIENT"}}]}, "spec.tracing[0].match.mode"),
        ({"tracing": [{"providers": [{"name": "a"}, {"name": "b"}]}]}, "spec.tracing[0].providers[1]"),
        ({"tracing": [{"randomSamplingPercentage": 101}]}, "spec.tracing[0].randomSamplingPercentage"),
        ({"tracing": [{"randomSamplingPercentage": True}]}, "spec.tracing[0].randomSamplingPercentage"),
        ({"tracing": [{"enableIstioTags": True}]}, "spec.tracing[0].enableIstioTags"),
        ({"tracing": [{"useRequestIdForTraceSampling": False}]}, "spec.tracing[0].useRequestIdForTraceSampling"),
        ({"tracing": [{"disableContextPropagation": True}]}, "spec.tracing[0].disableContextPropagation"),
        ({"tracing": [{"customTags": {"a": {"environment": {"name": "X"}}}}]}, "customTags[a].environment"),
        ({"tracing": [{"customTags": {"a": {"formatter": {"value": "%X%"}}}}]}, "customTags[a].formatter"),
        ({"tracing": [{"customTags": {"a": {}}}]}, "customTags[a]"),
        ({"tracing": [{"customTags": {"": {"literal": {"value": "x"}}}}]}, "customTags[]: a tag needs a name"),
        ({"tracing": [{"customTags": {"a": {"literal": {"value": ""}}}}]}, "customTags[a].literal.value"),
        ({"tracing": [{"customTags": {"a": {"header": {"name": "a b"}}}}]}, "customTags[a].header.name"),
        ({"accessLogging": [{}, {}]}, "spec.accessLogging[1]"),
        ({"accessLogging": [{"match": {"mode": "SERVER"}}]}, "spec.accessLogging[0].match.mode"),
        ({"accessLogging": [{"filter": {"expression": "request.path == '/x'"}}]}, "filter.expression"),
        ({"accessLogging": [{"filter": {"expression": "response.code >= 400 || true"}}]}, "filter.expression"),
        ({"accessLogging": [{"disabled": "yes"}]}, "spec.accessLogging[0].disabled"),
        ({"accessLogging": [{"other": 1}]}, "spec.accessLogging[0].other"),
        ({"other": 1}, "spec.other"),
        ({"selector": {"matchLabels": {"a": "b"}}, "targetRefs": [{"kind": "Service", "name": "a"}]}, "targetRefs"),
    ],
)
def test_what_a_waypoint_does_not_do_is_refused_by_its_name(spec: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        read(**spec)
    assert field in str(refused.value)
