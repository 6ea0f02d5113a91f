"""telemetry.istio.io: Telemetry, as far as waypoints do what it says; any other field is refused, by its name."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from ambient.kube import syntax
from ambient.kube.metadata import Shape, read_common
from ambient.kube.read import Field, Object
from ambient.kube.security import read_targets
from ambient.kube.telemetry_values import Logging, SpanTag, Telemetry, Tracing

SHAPE: Final = Shape(
    ("telemetry.istio.io/v1", "telemetry.istio.io/v1alpha1"), True, syntax.dns_subdomain, ("spec",), strict=True
)
_TRACING: Final = syntax.words(
    "match providers randomSamplingPercentage disableSpanReporting customTags enableIstioTags"
    " useRequestIdForTraceSampling disableContextPropagation"
)
_UNDONE: Final = syntax.words("useRequestIdForTraceSampling disableContextPropagation enableIstioTags")
_TAGS: Final = ("literal", "header", "environment", "formatter")
_EXPRESSION: Final = re.compile(r"(has\(response\.code\) *&& *)?response\.code *(>=|>) *([1-5][0-9]{2})")
_NO_METRICS: Final = "not supported: a waypoint tells Istio's metrics with all their labels, and nobody else is told"
_MOST_TAGS: Final = 32


def parse_telemetry(top: Object, raw: Mapping[str, Any]) -> Telemetry:
    """Raises InvalidInput; every rule has its row in the tests."""
    common = read_common(top, SHAPE, raw)
    spec = top.read(
        "spec",
        lambda f: f.object(("selector", "targetRef", "targetRefs", "tracing", "metrics", "accessLogging")),
        None,
    )
    if spec is None:
        return Telemetry(**common)
    selector, refs = read_targets(spec)
    if spec.present("metrics"):
        raise spec.need("metrics").refuse(_NO_METRICS)
    return Telemetry(
        **common,
        selector=selector,
        target_refs=refs,
        tracing=spec.read("tracing", lambda field: _only(field, _tracing), None),
        logging=spec.read("accessLogging", lambda field: _only(field, _logging), None),
    )


def _only(field: Field, read: Any) -> Any:
    """The one entry: which of several holds for a side of a connection means nothing where there is one proxy."""
    entries = field.items()
    if len(entries) > 1:
        raise entries[1].refuse("more than one entry is not supported")
    return read(entries[0]) if entries else None


def _provider(entry: Object) -> str:
    entry.read("match", _match, None)
    found = entry.each("providers", lambda f: f.object(("name",)).need("name").text())
    if len(found) > 1:
        raise entry.need("providers").items()[1].refuse("more than one provider is not supported")
    return found[0] if found else ""


def _match(field: Field) -> None:
    field.object(("mode",)).read("mode", lambda f: f.one_of(("CLIENT_AND_SERVER",)), "")


def _tracing(field: Field) -> Tracing:
    entry = field.object(_TRACING)
    for name in entry.present(*_UNDONE):
        raise entry.need(name).refuse("not supported")
    tags = entry.read("customTags", _tags, None)
    return Tracing(
        provider=_provider(entry),
        percent=entry.read("randomSamplingPercentage", _percent, None),
        off=entry.read("disableSpanReporting", Field.flag, None),
        tags=tags,
    )


def _percent(field: Field) -> float:
    value = field.value
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 100:
        raise field.refuse("expected a number from 0 to 100")
    return float(value)


def _tags(field: Field) -> tuple[SpanTag, ...]:
    found = field.mapping()
    if len(found) > _MOST_TAGS:
        raise field.refuse(f"at most {_MOST_TAGS} tags")
    return tuple(_tag(name, Field(found[name], f"{field.path}[{name}]", field.what)) for name in sorted(found))


def _tag(name: str, field: Field) -> SpanTag:
    if not name:
        raise field.refuse("a tag needs a name")
    entry = field.object(_TAGS)
    kinds = entry.present(*_TAGS)
    if len(kinds) != 1:
        raise field.refuse(f"needs exactly one of {', '.join(_TAGS)}")
    match kinds[0]:
        case "literal":
            return SpanTag(name, "literal", entry.need("literal").object(("value",)).need("value").checked(_some))
        case "header":
            header = entry.need("header").object(("name", "defaultValue"))
            return SpanTag(name, "header", header.need("name").checked(syntax.header_name), header.text("defaultValue"))
    raise entry.need(kinds[0]).refuse("not supported: tags are of literals and headers")


def _some(value: str) -> str:
    return "" if value else "may not be empty"


def _logging(field: Field) -> Logging:
    entry = field.object(("match", "providers", "disabled", "filter"))
    least = entry.read("filter", lambda f: _least(f.object(("expression",)).need("expression")), None)
    return Logging(_provider(entry), entry.read("disabled", Field.flag, None), least)


def _least(field: Field) -> int:
    """The least status that is logged."""
    found = _EXPRESSION.fullmatch(field.text().strip())
    if found is None:
        raise field.refuse("not supported: an expression is like `response.code >= 400`")
    return int(found[3]) + (found[2] == ">")
