"""Where spans and logs go to: what a Gateway's annotations say, and what Envoy is told."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ambient.kube.telemetry_values import SpanTag
from ambient.waypoint.access import http_log
from ambient.waypoint.exports import (
    ACCESS_LOG,
    NO_EXPORTS,
    NO_LOG,
    TRACING,
    Collector,
    Exports,
    collectors,
    exported_log,
    read_exports,
    tracing,
)
from ambient.waypoint.resources import resources
from ambient.waypoint.typed import CLUSTER_TYPE, LISTENER_TYPE
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


def test_tags_of_its_owner_are_on_every_span() -> None:
    tags = (SpanTag("env", "literal", "prod"), SpanTag("team", "header", "x-team", "none"))
    found = tracing(Exports(Collector("otlp", "y", 1), tags=tags), "web", "peer")["tracing"]["custom_tags"]
    assert found[1:] == [
        {"tag": "env", "literal": {"value": "prod"}},
        {"tag": "team", "request_header": {"name": "x-team", "default_value": "none"}},
    ]


def test_what_a_service_has_of_its_own_takes_the_place_of_what_holds_for_all() -> None:
    own = Exports(Collector("otlp", "own", 1), Collector("otlp", "logs", 2), (SpanTag("a", "literal", "b"),), 400)
    told = replace(EVERY_EXPORT, fronts=(replace(front(), exports=own), front(name="other")))
    found = {(url, name): content for url, name, content in resources(told)}
    names = [f"service|80|{name}.shop.svc.cluster.local" for name in ("web", "other")]
    web, other = (str(found[LISTENER_TYPE, name]) for name in names)
    assert (CLUSTER_TYPE, "collector|otlp|1|own") in found
    assert "collector|otlp|1|own" in web
    assert "collector|otlp|1|own" not in other
    assert "'least': '400'" in web
    assert "status_code_filter" in web
    assert "'least'" not in other
    for url, name, content in resources(told):
        encode(url, name, content)


def test_where_nothing_is_logged_nothing_is_sent_and_all_is_counted() -> None:
    quiet = replace(EVERY_KIND, fronts=(replace(front(), exports=Exports(least=NO_LOG)),))
    found = [one for url, name, one in resources(quiet) if (url, name[:11]) == (LISTENER_TYPE, "service|80|")]
    listener = found[0]
    (manager,) = listener["filter_chains"][0]["filters"]
    (log,) = manager["typed_config"]["access_log"]
    assert "filter" not in log
    assert log["typed_config"]["log_format"]["json_format"]["least"] == "1000"
