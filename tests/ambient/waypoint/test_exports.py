"""Where spans and logs go to: what a Gateway's annotations say, and what Envoy is told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ambient.waypoint.access import http_log
from ambient.waypoint.exports import (
    ACCESS_LOG,
    NO_EXPORTS,
    TRACING,
    Collector,
    Exports,
    collectors,
    exported_log,
    read_exports,
    tracing,
)
from ambient.waypoint.resources import resources
from ambient.waypoint.wire import encode
from tests.support.waypoint_views import EVERY_EXPORT, EVERY_KIND, front


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("otlp collector.obs:4317", Collector("otlp", "collector.obs", 4317, 1.0)),
        ("otlp 10.1.2.3:4317 100%", Collector("otlp", "10.1.2.3", 4317, 100.0)),
        ("zipkin [fd00::1]:9411 0.5%", Collector("zipkin", "fd00::1", 9411, 0.5)),
    ],
)
def test_an_annotation_says_where_spans_go_and_of_how_many_traces(text: str, told: Collector) -> None:
    assert read_exports({TRACING: text}) == (Exports(spans=told), {})


@pytest.mark.parametrize(
    "text",
    ["", "otlp", "jaeger x:1", "otlp x:0", "otlp x:70000", "otlp x:1 101%", "otlp x:1 .%", "otlp x:1%"],
)
def test_what_cannot_be_read_is_told_and_nothing_else_is_changed_by_it(text: str) -> None:
    found, unread = read_exports({TRACING: text, ACCESS_LOG: "otlp y:4317"})
    assert found == Exports(logs=Collector("otlp", "y", 4317))
    assert unread.keys() == {TRACING}


def test_a_log_is_sent_as_otlp_alone() -> None:
    assert read_exports({ACCESS_LOG: "zipkin y:1"})[1].keys() == {ACCESS_LOG}


def test_where_nobody_asks_nothing_is_sent() -> None:
    assert tracing(NO_EXPORTS, "web", "x") == {}
    assert exported_log(NO_EXPORTS, http_log(front())) == []
    assert list(collectors(NO_EXPORTS)) == []


def test_the_record_of_a_log_has_the_fields_of_its_line() -> None:
    line = http_log(front())
    (log,) = exported_log(Exports(logs=Collector("otlp", "x", 1)), line)
    fields = {one["key"]: one["value"]["string_value"] for one in log["typed_config"]["attributes"]["values"]}
    assert fields == line["typed_config"]["log_format"]["json_format"]


def test_a_collector_of_both_is_one_cluster() -> None:
    one = Collector("otlp", "x", 1)
    assert len(list(collectors(Exports(replace(one, percent=7.0), one)))) == 1


def test_every_resource_is_a_message_and_tunnels_are_as_ever() -> None:
    told = {(url, name): content for url, name, content in resources(EVERY_EXPORT)}
    for (url, name), content in told.items():
        encode(url, name, content)
    same = [key for url, name, content in resources(EVERY_KIND) if told.get(key := (url, name)) == content]
    assert any("connect_terminate" in name for _, name in same)
