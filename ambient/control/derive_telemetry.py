"""What Telemetry resources say of a service behind a waypoint: the more exact one first, field by field. Pure.

As Istio orders them: what targets the service, then its Gateway, then what is for the waypoint's namespace, then for
the mesh. Of several that are alike the oldest counts.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from ambient.kube.mesh_config import MeshConfig
from ambient.kube.mesh_telemetry import STDOUT
from ambient.kube.policies import TargetRef
from ambient.kube.telemetry_values import Telemetry
from ambient.waypoint.exports import NO_LOG, Collector, Exports

T = TypeVar("T")

_SERVICE, _GATEWAY, _NAMESPACE, _CLASS, _MESH = range(5)
_BY_KIND: Final = {"Gateway": _GATEWAY, "GatewayClass": _CLASS}
_SPANS: Final = ("otlp", "zipkin")
_LOGS: Final = ("otlp-log", STDOUT)


@dataclass(frozen=True, slots=True)
class Telemetries:
    """`records`: all there are."""

    records: Collection[Telemetry] = ()
    mesh: MeshConfig = MeshConfig()
    root_namespace: str = "istio-system"

    def exports(self, base: Exports, namespace: str, means: Callable[[TargetRef, str], bool]) -> Exports:
        """Of a service, whose waypoint in `namespace` sends to `base` of itself. `means(ref, namespace)`: what a record
        of that namespace targets is the service, or its waypoint."""
        found = list(self._in_order(namespace, means))
        return self._logged(self._traced(base, found), found) if found else base

    def trouble(self, record: Telemetry) -> str:
        """Why what it names cannot be told, "" when it can."""
        wrong = []
        unknown = "the mesh config has no extensionProvider"
        for part, said, kinds in (("tracing", record.tracing, _SPANS), ("accessLogging", record.logging, _LOGS)):
            if said is not None and said.provider:
                provider = self.mesh.told.get(said.provider)
                if provider is None:
                    wrong.append(f"spec.{part}[0].providers: {unknown} {said.provider!r}")
                elif provider.kind not in kinds:
                    wrong.append(f"spec.{part}[0].providers: {said.provider!r} is none for {part}")
        return "; ".join(wrong)

    def _in_order(self, namespace: str, means: Callable[[TargetRef, str], bool]) -> Iterator[Telemetry]:
        best: dict[int, Telemetry] = {}
        for one in sorted(self.records, key=lambda one: (one.created or "~", one.key)):
            for level in self._levels(one, namespace, means):
                best.setdefault(level, one)
        return (best[level] for level in sorted(best))

    def _levels(self, one: Telemetry, namespace: str, means: Callable[[TargetRef, str], bool]) -> Iterator[int]:
        if one.selector is not None:
            return
        if one.target_refs:
            yield from (_BY_KIND.get(ref.kind, _SERVICE) for ref in one.target_refs if means(ref, one.namespace))
        elif one.namespace == namespace:
            yield _NAMESPACE
        elif one.namespace == self.root_namespace:
            yield _MESH

    def _traced(self, base: Exports, found: Collection[Telemetry]) -> Exports:
        said = [one.tracing for one in found if one.tracing is not None]
        if not said:
            return base
        if _first(one.off for one in said):
            return replace(base, spans=None)
        spans = self._collector("tracing", next((one.provider for one in said if one.provider), ""), _SPANS)
        spans = spans or base.spans
        percent = _first(one.percent for one in said)
        if spans is not None and percent is not None:
            spans = replace(spans, percent=percent)
        return replace(base, spans=spans, tags=_first(one.tags for one in said) or ())

    def _logged(self, base: Exports, found: Collection[Telemetry]) -> Exports:
        said = [one.logging for one in found if one.logging is not None]
        if not said:
            return base
        if _first(one.off for one in said):
            return replace(base, logs=None, least=NO_LOG)
        logs = self._collector("accessLogging", next((one.provider for one in said if one.provider), ""), _LOGS)
        return replace(base, logs=logs or base.logs, least=_first(one.least for one in said) or 0)

    def _collector(self, part: str, name: str, kinds: Collection[str]) -> Collector | None:
        told = self.mesh.told.get(name or self.mesh.defaults.get(part, ""))
        if told is None or told.kind not in kinds or told.kind == STDOUT:
            return None
        return Collector("zipkin" if told.kind == "zipkin" else "otlp", told.hostname, told.port)


def _first(values: Iterator[T | None]) -> T | None:
    return next((one for one in values if one is not None), None)
