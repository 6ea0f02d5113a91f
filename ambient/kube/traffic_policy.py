"""trafficPolicy of a DestinationRule, read whole: a field that is not understood is refused."""

from __future__ import annotations

from typing import Final

from ambient.kube import syntax
from ambient.kube.durations import istio_duration, positive_duration
from ambient.kube.locality import read_spread
from ambient.kube.read import Field, Object
from ambient.kube.traffic_values import (
    LARGEST_RING,
    Balancer,
    ClientTls,
    HashBy,
    Keepalive,
    Outliers,
    Pool,
    RetryBudget,
    TrafficPolicy,
)

_POLICY: Final = syntax.words(
    "loadBalancer connectionPool outlierDetection tls portLevelSettings tunnel proxyProtocol retryBudget"
)
_BALANCER: Final = syntax.words("simple consistentHash localityLbSetting warmup warmupDurationSecs")
_SIMPLE: Final = syntax.words("UNSPECIFIED LEAST_CONN RANDOM PASSTHROUGH ROUND_ROBIN LEAST_REQUEST")
_HASHES: Final = syntax.words("httpHeaderName httpCookie useSourceIp httpQueryParameterName")
_TABLES: Final = syntax.words("ringHash maglev minimumRingSize")
_TCP: Final = syntax.words("maxConnections connectTimeout tcpKeepalive maxConnectionDuration idleTimeout")
_HTTP: Final = syntax.words(
    "http1MaxPendingRequests http2MaxRequests maxRequestsPerConnection maxRetries idleTimeout h2UpgradePolicy"
    " useClientProtocol maxConcurrentStreams http2KeepAlive"
)
_OUTLIERS: Final = syntax.words(
    "splitExternalLocalOriginErrors consecutiveLocalOriginFailures consecutiveGatewayErrors consecutive5xxErrors"
    " interval baseEjectionTime maxEjectionPercent minHealthPercent consecutiveErrors"
)
_TLS: Final = syntax.words(
    "mode clientCertificate privateKey caCertificates credentialName subjectAltNames sni insecureSkipVerify caCrl"
)
_TLS_MODES: Final = syntax.words("DISABLE SIMPLE MUTUAL ISTIO_MUTUAL")
_UPGRADES: Final = syntax.words("DEFAULT DO_NOT_UPGRADE UPGRADE")
_MOST: Final = 2**32 - 1
_LARGEST_TABLE: Final = 65_537


def read_traffic_policy(field: Field) -> TrafficPolicy:
    """Raises InvalidInput; every rule has its row in the tests."""
    entry = field.object(_POLICY)
    if not entry.present(*_POLICY):
        raise field.refuse("needs at least one field")
    ports = entry.each("portLevelSettings", _port_settings)
    numbers = [number for number, _ in ports]
    if len(set(numbers)) < len(numbers):
        raise entry.need("portLevelSettings").refuse("a port is there twice")
    return _settings(entry, ports)


def _port_settings(field: Field) -> tuple[int, TrafficPolicy]:
    entry = field.object(("port", "loadBalancer", "connectionPool", "outlierDetection", "tls"))
    return entry.need("port").object(("number",)).need("number").port(), _settings(entry, ())


def _settings(entry: Object, ports: tuple[tuple[int, TrafficPolicy], ...]) -> TrafficPolicy:
    return TrafficPolicy(
        entry.read("loadBalancer", _balancer, None),
        entry.read("connectionPool", _pool, None),
        entry.read("outlierDetection", _outliers, None),
        entry.read("tls", _tls, None),
        entry.read("retryBudget", _budget, None),
        ports,
    )


def _balancer(field: Field) -> Balancer:
    entry = field.object(_BALANCER)
    if len(entry.present("simple", "consistentHash")) > 1:
        raise entry.need("consistentHash").refuse("may not stand beside simple")
    warmup = entry.read("warmup", lambda f: f.object(("duration", "minimumPercent", "aggression")), None)
    warmup_ms = positive_duration(warmup.need("duration")) if warmup else 0
    simple = entry.read("simple", lambda f: f.one_of(_SIMPLE), "")
    hashed = entry.read("consistentHash", lambda f: f.object((*_HASHES, *_TABLES)), None)
    spread = entry.read("localityLbSetting", read_spread, None)
    warmup_ms = warmup_ms or entry.read("warmupDurationSecs", positive_duration, 0)
    if hashed is None:
        return Balancer(simple, warmup_ms=warmup_ms, spread=spread)
    given = hashed.present(*_HASHES)
    if len(given) != 1:
        raise hashed.at.refuse(f"needs exactly one of {', '.join(_HASHES)}")
    if len(hashed.present(*_TABLES)) > 1:
        raise hashed.at.refuse("ringHash, maglev and minimumRingSize exclude each other")
    ring = hashed.read("ringHash", lambda f: f.object(("minimumRingSize",)), None) or hashed
    maglev = hashed.read("maglev", lambda f: f.object(("tableSize",)), None)
    table = maglev.integer("tableSize", 65_537, 2, _LARGEST_TABLE) if maglev else 0
    if table and not _is_prime(table):
        raise hashed.need("maglev").refuse(f"a tableSize has to be a prime number, {table} is none")
    size = ring.integer("minimumRingSize", 0, 0, LARGEST_RING)
    return Balancer("", _hash_by(hashed, given[0]), size, table, warmup_ms, spread)


def _is_prime(number: int) -> bool:
    return all(number % divisor for divisor in range(2, int(number**0.5) + 1))


def _hash_by(entry: Object, kind: str) -> HashBy | None:
    field = entry.need(kind)
    match kind:
        case "httpHeaderName":
            return HashBy("header", field.checked(syntax.header_name))
        case "httpQueryParameterName":
            return HashBy("query", field.checked(_name))
        case "useSourceIp":
            return HashBy("source") if field.flag() else None
    cookie = field.object(("name", "path", "ttl", "attributes"))
    name = cookie.need("name").checked(syntax.header_name)
    return HashBy("cookie", name, cookie.read("path", _path, ""), cookie.read("ttl", istio_duration, None))


def _path(field: Field) -> str:
    return field.checked(lambda text: "" if text.isprintable() and ";" not in text else "is no path of a cookie")


def _name(text: str) -> str:
    return "" if text else "needs a name"


def _pool(field: Field) -> Pool:
    entry = field.object(("tcp", "http"))
    tcp = entry.read("tcp", lambda f: f.object(_TCP), Object(Field({}, field.path, field.what)))
    http = entry.read("http", lambda f: f.object(_HTTP), Object(Field({}, field.path, field.what)))
    return Pool(
        _count(tcp, "maxConnections"),
        tcp.read("connectTimeout", positive_duration, None),
        tcp.read("tcpKeepalive", _keepalive, None),
        tcp.read("maxConnectionDuration", positive_duration, None),
        tcp.read("idleTimeout", istio_duration, None),
        _count(http, "http1MaxPendingRequests"),
        _count(http, "http2MaxRequests"),
        _count(http, "maxRequestsPerConnection"),
        _count(http, "maxRetries"),
        http.read("idleTimeout", istio_duration, None),
        _count(http, "maxConcurrentStreams"),
        http.flag("useClientProtocol"),
        http.read("h2UpgradePolicy", lambda f: f.one_of(_UPGRADES), ""),
    )


def _count(entry: Object, key: str) -> int | None:
    return entry.read(key, lambda field: field.integer(0, 2**31 - 1), None)


def _keepalive(field: Field) -> Keepalive:
    entry = field.object(("probes", "time", "interval"))
    return Keepalive(
        entry.integer("probes", 0, 0, _MOST),
        entry.read("time", positive_duration, 0),
        entry.read("interval", positive_duration, 0),
    )


def _outliers(field: Field) -> Outliers:
    entry = field.object(_OUTLIERS)
    return Outliers(
        entry.read("consecutive5xxErrors", lambda f: f.integer(0, _MOST), _count(entry, "consecutiveErrors")),
        entry.read("consecutiveGatewayErrors", lambda f: f.integer(0, _MOST), None),
        entry.read("consecutiveLocalOriginFailures", lambda f: f.integer(0, _MOST), None),
        entry.flag("splitExternalLocalOriginErrors"),
        entry.read("interval", positive_duration, None),
        entry.read("baseEjectionTime", positive_duration, None),
        entry.read("maxEjectionPercent", lambda f: f.integer(0, 100, "a percentage"), None),
        entry.read("minHealthPercent", lambda f: f.integer(0, 100, "a percentage"), None),
    )


def _tls(field: Field) -> ClientTls:
    entry = field.object(_TLS)
    return ClientTls(
        entry.read("mode", lambda f: f.one_of(_TLS_MODES), "DISABLE"),
        entry.text("clientCertificate"),
        entry.text("privateKey"),
        entry.text("caCertificates"),
        entry.text("credentialName"),
        entry.texts("subjectAltNames"),
        entry.text("sni"),
        entry.flag("insecureSkipVerify"),
        entry.text("caCrl"),
    )


def _budget(field: Field) -> RetryBudget:
    entry = field.object(("percent", "minRetryConcurrency"))
    return RetryBudget(entry.read("percent", percentage, 20.0), entry.integer("minRetryConcurrency", 3, 0, _MOST))


def percentage(field: Field) -> float:
    """0..100, with fractions; raises InvalidInput."""
    value = field.value
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise field.refuse("expected a number")
    if not 0 <= value <= 100:
        raise field.refuse(f"{value} is not a percentage (0..100)")
    return float(value)
