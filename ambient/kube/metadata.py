"""What every Kubernetes object has: apiVersion, kind, metadata, status.conditions."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, TypedDict

from ambient.kube import syntax
from ambient.kube.read import Field, Object
from ambient.kube.records import Condition

_METADATA: Final = syntax.words(
    "name namespace labels annotations uid resourceVersion generation creationTimestamp deletionTimestamp"
    " deletionGracePeriodSeconds finalizers ownerReferences managedFields selfLink generateName"
)
_MAX_ANNOTATIONS: Final = 256 * 1024
_TIMESTAMP: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")


class Common(TypedDict):
    """Keyword arguments that every record takes."""

    name: str
    namespace: str
    uid: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    generation: int
    created: str
    deleting: bool
    conditions: tuple[Condition, ...]
    raw: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Shape:
    """What is particular to a kind: its apiVersions, whether it lives in a namespace, how it may be named.

    `strict`: every field is refused that we do not know, even in what a live API server shows us.
    """

    versions: tuple[str, ...]
    namespaced: bool
    name: Callable[[str], str]
    parts: tuple[str, ...]
    strict: bool = False


def timestamp(value: str) -> str:
    return "" if _TIMESTAMP.fullmatch(value) else f"{value!r} is not an RFC 3339 time"


def read_common(top: Object, shape: Shape, raw: Mapping[str, Any]) -> Common:
    """Check and read what is common. Raises InvalidInput."""
    top.at.object({*shape.parts, "apiVersion", "kind", "metadata", "status"})
    metadata = top.need("metadata").object(_METADATA)
    if metadata.get("generateName") is not None and metadata.get("name") is None:
        raise metadata.need("generateName").refuse("not supported; give the object a name")
    name = metadata.need("name").checked(shape.name)
    namespace = metadata.get("namespace")
    if namespace is not None and not shape.namespaced:
        raise namespace.refuse(f"a {top.need('kind').text()} does not live in a namespace")
    labels = metadata.text_map("labels", syntax.label)
    annotations = metadata.text_map("annotations", syntax.annotation)
    if sum(len(text.encode()) for entry in annotations.items() for text in entry) > _MAX_ANNOTATIONS:
        raise metadata.need("annotations").refuse(f"longer than {_MAX_ANNOTATIONS} bytes in all")
    status = top.get("status")
    return Common(
        name=name,
        namespace=(namespace.checked(syntax.dns_label) if namespace else "default") if shape.namespaced else "",
        uid=metadata.text("uid"),
        labels=MappingProxyType(labels),
        annotations=MappingProxyType(annotations),
        generation=metadata.integer("generation", 0, 0, 2**63 - 1),
        created=metadata.read("creationTimestamp", lambda field: field.checked(timestamp), ""),
        deleting=metadata.read("deletionTimestamp", lambda field: field.checked(timestamp), "") != "",
        conditions=status.open_object().each("conditions", condition) if status else (),
        raw=raw,
    )


def condition(field: Field) -> Condition:
    """One entry of a list of conditions."""
    entry = field.open_object()
    return Condition(
        entry.need("type").text(),
        entry.need("status").one_of(("True", "False", "Unknown")),
        entry.text("reason"),
        entry.text("message"),
        _generation(entry.get("observedGeneration")),
    )


def _generation(field: Field | None) -> int:
    """A number, or (Istio's kinds) one as text; 0 for what is neither: others write it, too."""
    value = str(field.value) if field is not None else ""
    return int(value) if value.isascii() and value.isdigit() and len(value) < 19 else 0
