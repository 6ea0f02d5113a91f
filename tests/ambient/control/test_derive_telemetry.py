"""Which Telemetry counts for a service, and what of it."""

from __future__ import annotations

from typing import Any

from ambient.control.derive_telemetry import Telemetries
from ambient.control.waypoints import Waypoints
from ambient.kube.mesh_config import MeshConfig
from ambient.kube.mesh_telemetry import Told
from ambient.kube.objects import Telemetry
from ambient.kube.policies import TargetRef
from ambient.kube.telemetry_values import Logging, SpanTag, Tracing
from ambient.waypoint.exports import NO_EXPORTS, NO_LOG, Collector, Exports
from ambient.waypoint.typed import CLUSTER_TYPE, LISTENER_TYPE
from tests.support.builders import raw
from tests.support.waypoint_records import derived, scene

MESH = MeshConfig(
    told={
        "otel": Told("otel", "otlp", "otel.obs", 4317),
        "zip": Told("zip", "zipkin", "zipkin.obs", 9411),
        "logs": Told("logs", "otlp-log", "logs.obs", 4317),
        "file": Told("file", "stdout"),
    }
)
OTEL, ZIPKIN = Collector("otlp", "otel.obs", 4317), Collector("zipkin", "zipkin.obs", 9411)
WEB, FRONT, CLASS = (
    TargetRef("", "Service", "web"),
    TargetRef("", "Gateway", "waypoint"),
    TargetRef("", "GatewayClass", "c"),
)
ALL = (WEB, FRONT, CLASS)


def told(name: str, *refs: TargetRef, namespace: str = "shop", **fields: Any) -> Telemetry:
    return Telemetry(name=name, namespace=namespace, target_refs=refs, **fields)


def exports(*records: Telemetry, base: Exports = NO_EXPORTS, mesh: MeshConfig = MESH) -> Exports:
    return Telemetries(records, mesh).exports(base, "shop", lambda ref, namespace: ref in ALL)


def test_without_one_it_is_as_it_was() -> None:
    assert exports(base=NO_EXPORTS) is NO_EXPORTS
    assert exports(told("other", namespace="elsewhere", logging=Logging(off=True))) is NO_EXPORTS
    assert exports(told("pods", selector={"a": "b"}, logging=Logging(off=True))) is NO_EXPORTS
    assert exports(told("not-this", TargetRef("", "Service", "db"), logging=Logging(off=True))) is NO_EXPORTS


def test_the_more_exact_one_goes_first() -> None:
    levels = [
        told("e", namespace="istio-system", logging=Logging(least=505)),
        told("d", CLASS, namespace="istio-system", logging=Logging(least=504)),
        told("c", logging=Logging(least=503)),
        told("b", FRONT, logging=Logging(least=502)),
        told("a", WEB, logging=Logging(least=501)),
    ]
    for count, least in enumerate((505, 504, 503, 502, 501), 1):
        assert exports(*levels[:count]).least == least
        assert exports(*reversed(levels[:count])).least == least


def test_of_those_alike_the_oldest_counts() -> None:
    old = told("z", logging=Logging(least=500), created="2026-01-01T00:00:00Z")
    assert exports(told("a", logging=Logging(least=400), created="2026-01-02T00:00:00Z"), old).least == 500


def test_what_one_does_not_say_the_next_does() -> None:
    tags = (SpanTag("env", "literal", "prod"),)
    mesh = told("mesh", namespace="istio-system", tracing=Tracing("otel", 50.0, tags=tags))
    found = exports(mesh, told("web", WEB, tracing=Tracing(percent=5.0)))
    assert found == Exports(Collector("otlp", "otel.obs", 4317, 5.0), tags=tags)
    assert exports(mesh, told("web", WEB, tracing=Tracing("zip"))).spans == Collector(
        "zipkin", "zipkin.obs", 9411, 50.0
    )
    assert exports(mesh, told("web", WEB, tracing=Tracing(off=True))).spans is None
    assert exports(
        told("m", namespace="istio-system", tracing=Tracing("otel", off=True)), told("n", tracing=Tracing(off=False))
    ).spans


def test_what_is_off_is_told_nobody_and_what_is_filtered_is_told_to_the_same() -> None:
    base = Exports(logs=OTEL)
    assert exports(told("t", logging=Logging(off=True)), base=base) == Exports(least=NO_LOG)
    assert exports(told("t", logging=Logging(least=400)), base=base) == Exports(logs=OTEL, least=400)
    assert exports(told("t", logging=Logging("logs"))).logs == Collector("otlp", "logs.obs", 4317)
    assert exports(told("t", logging=Logging("file")), base=base) == base


def test_one_that_names_nobody_means_the_default_else_what_the_gateway_says() -> None:
    base = Exports(spans=ZIPKIN)
    assert exports(told("t", tracing=Tracing(percent=7.0)), base=base).spans == Collector(
        "zipkin", "zipkin.obs", 9411, 7.0
    )
    mesh = MeshConfig(told=MESH.told, defaults={"tracing": "otel"})
    assert exports(told("t", tracing=Tracing()), base=base, mesh=mesh).spans == OTEL


def test_who_is_not_known_is_said() -> None:
    telemetries = Telemetries((), MESH)
    assert telemetries.trouble(told("t", tracing=Tracing("otel"), logging=Logging("file"))) == ""
    assert "'nobody'" in telemetries.trouble(told("t", tracing=Tracing("nobody")))
    assert "none for accessLogging" in telemetries.trouble(told("t", logging=Logging("zip")))


def record(name: str, **spec: Any) -> dict[str, Any]:
    return {**raw("Telemetry", name, spec, namespace="shop"), "apiVersion": "telemetry.istio.io/v1"}


def test_a_waypoint_is_told_of_it_by_service_and_the_condition_says_who_is_not_known() -> None:
    made = Waypoints(("cluster.local",), "istio-system", "cluster.local")
    ref = {"group": "", "kind": "Service", "name": "web"}
    found = scene(record("t", targetRefs=[ref], tracing=[{"providers": [{"name": "otel"}]}]))
    made.update(found, derived(found))
    assert "no extensionProvider 'otel'" in made.conditions("Telemetry/shop/t")[0].message
    said: list[str] = []
    made.say = said.append
    made.configure(MESH)
    assert "Telemetry/shop/t" in said
    assert made.conditions("Telemetry/shop/t") == ()
    (served,) = made._served.values()
    assert (CLUSTER_TYPE, OTEL.cluster) in served.made
    content, _ = served.made[LISTENER_TYPE, "service|80|web.shop.svc.cluster.local"]
    assert "opentelemetry" in str(content)


def test_a_selector_means_none_of_ours() -> None:
    found = scene(record("t", selector={"matchLabels": {"app": "web"}}))
    (condition,) = derived(found).conditions["Telemetry/shop/t"]
    assert (condition.status, condition.reason) == ("False", "Invalid")
    found = scene(record("t", accessLogging=[{"disabled": True}]))
    (condition,) = derived(found).conditions["Telemetry/shop/t"]
    assert condition.status == "True"
