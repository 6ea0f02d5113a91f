"""Whether and where spans go: OpenTelemetry's own variables, read once into one frozen value."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar
from urllib.parse import unquote, urlsplit

from ambient.errors import InvalidInput
from ambient.settings import choice, integer

_T = TypeVar("_T")
_PREFIX: Final = "OTEL_EXPORTER_OTLP_"
_Pairs = tuple[tuple[str, str], ...]
_NO_PAIRS: Final[_Pairs] = ()
_SAMPLERS: Final = ("always_on", "traceidratio", "parentbased_always_on", "parentbased_traceidratio")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tracing:
    """`url`: where requests are posted. `ratio`: share of traces to export. Times in seconds; `queue` and `batch`
    count flow records (two per connection: opened and ended)."""

    url: str
    headers: _Pairs = ()
    ca_file: str = ""
    timeout_s: float = 10.0
    gzip: bool = False
    ratio: float = 1.0
    queue: int = 2048
    batch: int = 512
    delay_s: float = 5.0
    resource: _Pairs = ()


def read_tracing(env: Mapping[str, str], *, node: str, pod: str) -> Tracing | None:
    """The settings in `env`, None when no endpoint is set. Raises InvalidInput naming the variable.

    Names and defaults are those of the OpenTelemetry specification (OTLP exporter, batch span processor, SDK
    environment variables), those of TRACES before the general ones.
    """
    traces, general = env.get(f"{_PREFIX}TRACES_ENDPOINT", ""), env.get(f"{_PREFIX}ENDPOINT", "")
    if (not traces and not general) or env.get("OTEL_SDK_DISABLED", "").lower() == "true":
        return None
    if env.get("OTEL_TRACES_EXPORTER", "otlp") == "none":
        return None
    name = f"{_PREFIX}TRACES_ENDPOINT" if traces else f"{_PREFIX}ENDPOINT"
    url = traces or general.rstrip("/") + "/v1/traces"
    if urlsplit(url).scheme not in ("http", "https") or not urlsplit(url).hostname:
        raise InvalidInput("unusable setting", name, f"{url!r}: expected http(s)://host[:port]")

    def read(name: str, default: _T, parse: Callable[[str], _T]) -> _T:
        raw = env.get(name, "")
        if not raw:
            return default
        try:
            return parse(raw)
        except ValueError as error:
            raise InvalidInput("unusable setting", name, f"{raw!r}: {error}") from None

    def otlp(name: str, default: _T, parse: Callable[[str], _T]) -> _T:
        return read(f"{_PREFIX}TRACES_{name}", read(f"{_PREFIX}{name}", default, parse), parse)

    otlp("PROTOCOL", "http/json", choice("http/json"))
    sampler = read("OTEL_TRACES_SAMPLER", "always_on", choice(*_SAMPLERS))
    ratio = read("OTEL_TRACES_SAMPLER_ARG", 1.0, _share) if sampler.endswith("traceidratio") else 1.0
    named = {"service.name": env.get("OTEL_SERVICE_NAME", "") or "ztunnel", "k8s.node.name": node, "k8s.pod.name": pod}
    resource = {**dict(read("OTEL_RESOURCE_ATTRIBUTES", _NO_PAIRS, _pairs)), **{k: v for k, v in named.items() if v}}
    return Tracing(
        url=url,
        headers=otlp("HEADERS", _NO_PAIRS, _headers),
        ca_file=otlp("CERTIFICATE", "", str),
        timeout_s=otlp("TIMEOUT", 10_000, integer(1, 600_000)) / 1000,
        gzip=otlp("COMPRESSION", "none", choice("none", "gzip")) == "gzip",
        ratio=ratio,
        queue=read("OTEL_BSP_MAX_QUEUE_SIZE", 2048, integer(1, 1_000_000)),
        batch=read("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", 512, integer(1, 100_000)),
        delay_s=read("OTEL_BSP_SCHEDULE_DELAY", 5_000, integer(1, 600_000)) / 1000,
        resource=tuple(resource.items()),
    )


def _pairs(raw: str) -> _Pairs:
    found = []
    for part in raw.split(","):
        key, equals, value = part.strip().partition("=")
        if not equals or not key.strip() or not (key + value).isprintable():
            raise ValueError("expected key=value,key=value")
        found.append((key.strip(), unquote(value.strip())))
    return tuple(found)


def _headers(raw: str) -> _Pairs:
    pairs = _pairs(raw)
    if not all(text.isascii() and text.isprintable() for pair in pairs for text in pair):
        raise ValueError("expected printable ASCII")
    return pairs


def _share(raw: str) -> float:
    share = float(raw)
    if not math.isfinite(share) or not 0 <= share <= 1:
        raise ValueError("expected a number from 0 to 1")
    return share
