"""What a Telemetry resource says, as values. Of each field None, or "", means that the next wider resource says it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from ambient.kube.policies import TargetRef
from ambient.kube.records import Record


@dataclass(frozen=True, slots=True)
class SpanTag:
    """`kind` is literal, then `value` is the tag's, or header: the value of the header called `value`, else
    `default`."""

    name: str
    kind: str
    value: str
    default: str = ""


@dataclass(frozen=True, slots=True)
class Tracing:
    """`provider`: of MeshConfig. `percent`: of the traces that begin here. `off`: no spans are told."""

    provider: str = ""
    percent: float | None = None
    off: bool | None = None
    tags: tuple[SpanTag, ...] | None = None


@dataclass(frozen=True, slots=True)
class Logging:
    """`least`: only answers with at least this status are logged."""

    provider: str = ""
    off: bool | None = None
    least: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Telemetry(Record):
    """Of a waypoint, or of services behind it. Those with a `selector` mean pods, and none of ours."""

    kind: ClassVar[str] = "Telemetry"
    selector: Mapping[str, str] | None = None
    target_refs: tuple[TargetRef, ...] = ()
    tracing: Tracing | None = None
    logging: Logging | None = None
