"""What people write of one service's traffic, drawn at random: DestinationRules, VirtualServices, routes of every kind,
limits, Telemetry."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.support.builders import raw
from tests.support.random_words import EXPRESSIONS, HEADERS, HOSTS, PARTS, Words

API = "gateway.networking.k8s.io/v1"
NETWORKING = "networking.istio.io/v1"
SUBSETS = ("v1", "v2", "none")
_DURATIONS = ("1ms", "0.5s", "10s", "1h", "99999h")
_COUNTS = (0, 1, 1000, 2**31 - 1)
_GRPC = ("UNAVAILABLE", "OK", "INTERNAL")
_LOCALITIES = ("r1/z1/*", "r1/*", "r2/z1", "*", "r2/z1/s1")
_LIMIT_UNITS = "smhd"


class Traffic:
    """Of one service, by its host name. `subsets`: those that its DestinationRule has."""

    def __init__(self, words: Words, name: str, host: str, ports: list[int]) -> None:
        self._words = words
        self._name = name
        self._host = host
        self._ports = ports

    def _object(self, version: str, kind: str, name: str, spec: dict[str, Any], **metadata: Any) -> dict[str, Any]:
        return {**raw(kind, name, spec, namespace="shop", **metadata), "apiVersion": version}

    # --- DestinationRule

    def destination_rule(self, tls: Callable[[], dict[str, Any]] | None = None) -> dict[str, Any]:
        """`tls`: draws what is to be begun with the endpoints."""
        words = self._words
        policy = lambda: self._policy(tls) or {"loadBalancer": {"simple": "RANDOM"}}  # noqa: E731
        ports = [{"port": {"number": one}, **self._policy(tls, ports=True)} for one in self._ports[:1]]
        spec: dict[str, Any] = {"host": self._host}
        if words.often(0.9):
            spec["trafficPolicy"] = policy() | ({"portLevelSettings": ports} if words.often(0.3) else {})
        spec["subsets"] = [
            {
                "name": one,
                "labels": {"version": one},
                "trafficPolicy": policy() if words.often(0.4) else None,
            }
            for one in SUBSETS
        ]
        return self._object(NETWORKING, "DestinationRule", self._name, spec)

    def _policy(self, tls: Callable[[], dict[str, Any]] | None, *, ports: bool = False) -> dict[str, Any]:
        fields: dict[str, Callable[[], Any]] = {
            "loadBalancer": self._balancer,
            "connectionPool": self._pool,
            "outlierDetection": self._outliers,
        }
        if not ports:
            fields["retryBudget"] = lambda: {"percent": self._words.one(0, 0.1, 100), "minRetryConcurrency": 3}
        if tls is not None:
            fields["tls"] = tls
        return self._words.some(fields, 1, 3)

    def _balancer(self) -> dict[str, Any]:
        words = self._words
        made: dict[str, Any] = {}
        if words.often(0.5):
            made["simple"] = words.one("LEAST_REQUEST", "RANDOM", "ROUND_ROBIN", "PASSTHROUGH", "LEAST_CONN")
        else:
            cookie = {"name": words.one("user", "a", words.text(9)), "path": words.one("/", None), "ttl": "0s"}
            hashed: dict[str, Any] = words.one(
                {"httpHeaderName": words.one(*HEADERS)},
                {"httpCookie": cookie},
                {"useSourceIp": words.often(0.7)},
                {"httpQueryParameterName": words.one("q", words.text(20))},
            )
            table = words.one({}, {"ringHash": {"minimumRingSize": 65_536}}, {"maglev": {"tableSize": 65_537}})
            made["consistentHash"] = {**hashed, **table}
        if words.often(0.3):
            made["warmup"] = {"duration": words.one("1s", "1h"), "minimumPercent": 10, "aggression": 1.5}
        if words.often(0.5):
            made["localityLbSetting"] = self._spread()
        return made

    def _spread(self) -> dict[str, Any]:
        words = self._words
        first, second = words.rng.sample(_LOCALITIES, 2)
        labels = ("topology.kubernetes.io/region", "topology.kubernetes.io/zone", "topology.istio.io/subzone")
        return words.one(
            {},
            {"enabled": False},
            {"distribute": [{"from": words.one("r1/*", "*"), "to": {first: 1, second: 99}}]},
            {"failover": [{"from": "r1", "to": words.one("r2", "nowhere")}]},
            {"failoverPriority": [*labels, "kubernetes.io/hostname"][: words.one(1, 2, 4)]},
        )

    def _pool(self) -> dict[str, Any]:
        words = self._words
        count = lambda: words.one(*_COUNTS)  # noqa: E731
        long = lambda: words.one(*_DURATIONS)  # noqa: E731
        keepalive = lambda: {"probes": words.one(0, 1, 2**31), "time": long(), "interval": long()}  # noqa: E731
        tcp: dict[str, Callable[[], Any]] = {
            "maxConnections": count,
            "connectTimeout": long,
            "tcpKeepalive": keepalive,
            "maxConnectionDuration": long,
            "idleTimeout": long,
        }
        http: dict[str, Callable[[], Any]] = {
            "http1MaxPendingRequests": count,
            "http2MaxRequests": count,
            "maxRequestsPerConnection": count,
            "maxRetries": count,
            "idleTimeout": long,
            "maxConcurrentStreams": count,
            "useClientProtocol": lambda: words.often(0.5),
            "h2UpgradePolicy": lambda: words.one("DEFAULT", "DO_NOT_UPGRADE", "UPGRADE"),
        }
        return {"tcp": words.some(tcp, 0, 3), "http": words.some(http, 0, 4)}

    def _outliers(self) -> dict[str, Any]:
        words = self._words
        share = lambda: words.one(0, 50, 100)  # noqa: E731
        long = lambda: words.one(*_DURATIONS)  # noqa: E731
        fields: dict[str, Callable[[], Any]] = {
            **{
                name: lambda: words.one(0, 1, 2**32 - 1)
                for name in ("consecutiveLocalOriginFailures", "consecutiveGatewayErrors", "consecutive5xxErrors")
            },
            "splitExternalLocalOriginErrors": lambda: words.often(0.5),
            "interval": long,
            "baseEjectionTime": long,
            "maxEjectionPercent": share,
            "minHealthPercent": share,
        }
        return words.some(fields, 1, 6)

    # --- VirtualService

    def virtual_service(self) -> dict[str, Any]:
        words = self._words
        spec: dict[str, Any] = {"hosts": [self._host]}
        if words.often(0.8):
            spec["http"] = words.several(self._http_rule, 1, 2, 6)
        if words.often(0.3):
            match = [{"sniHosts": words.rng.sample(HOSTS, 2), "port": words.one(None, *self._ports)}]
            spec["tls"] = [{"match": match, "route": words.several(self._weighted, 1)}]
        if words.often(0.3) or len(spec) == 1:
            spec["tcp"] = [{"route": words.several(self._weighted, 1, 1, 2)}]
        return self._object(NETWORKING, "VirtualService", self._name, spec)

    def _weighted(self) -> dict[str, Any]:
        words = self._words
        host = words.one(self._host, self._host, "nobody")
        to = {"host": host, "port": {"number": words.one(*self._ports)}, "subset": words.one(None, *SUBSETS)}
        return {"destination": to, "weight": words.one(1, 10, 1_000_000)}

    def _http_rule(self) -> dict[str, Any]:
        words = self._words
        made: dict[str, Any] = {"match": words.several(self._virtual_match, 0, 1, 3)}
        kind = words.one("route", "route", "route", "redirect", "directResponse")
        match kind:
            case "route":
                made["route"] = words.several(self._edited, 1, 1, 3)
                made |= words.some(self._on_route(), 0, 4)
            case "redirect":
                authority = words.one("x.example.com", words.text(9))
                made["redirect"] = {"uri": words.one(*PARTS), "authority": authority, "redirectCode": 308}
            case _:
                made["directResponse"] = {"status": words.one(200, 418, 599), "body": {"string": words.text()}}
        made |= words.some({"fault": self._fault, "headers": self._edit, "corsPolicy": self._cors}, 0, 2)
        return made

    def _edited(self) -> dict[str, Any]:
        return self._weighted() | (self._words.some({"headers": self._edit}, 0, 1))

    def _edit(self) -> dict[str, Any]:
        words = self._words
        side = lambda: {  # noqa: E731
            "set": {words.one(*HEADERS): words.text()},
            "add": {"x-b": words.one("%", "%REQ(x)%", "%%START_TIME%", words.text())},
            "remove": [words.one(*HEADERS)],
        }
        return words.some({"request": side, "response": side}, 1, 2)

    def _on_route(self) -> dict[str, Callable[[], Any]]:
        words = self._words
        pattern = words.one(*EXPRESSIONS)
        substitution = words.one(r"/\1", "/x", r"\\", "", words.text(12))
        return {
            "timeout": lambda: words.one(*_DURATIONS, "0s"),
            "retries": lambda: {
                "attempts": words.one(0, 1, 9),
                "perTryTimeout": words.one(*_DURATIONS),
                "retryOn": words.one("5xx", "connect-failure,503", "reset,retriable-4xx,599", "unavailable"),
                "backoff": words.one(None, "1ms", "1h"),
            },
            "rewrite": lambda: words.one(
                {"uri": words.one(*PARTS)},
                {"authority": words.one("h.example.com", words.text(9))},
                {"uriRegexRewrite": {"match": pattern, "rewrite": substitution}},
            ),
            "mirror": lambda: {"host": self._host, "port": {"number": self._ports[0]}},
            "mirrorPercentage": lambda: {"value": words.one(0, 0.1, 100)},
        }

    def _virtual_match(self) -> dict[str, Any]:
        words = self._words
        fields: dict[str, Callable[[], Any]] = {
            "uri": lambda: self._string(path=True),
            "method": self._string,
            "authority": self._string,
            "scheme": self._string,
            "headers": lambda: {words.one(*HEADERS, words.text(20)): self._string()},
            "withoutHeaders": lambda: {words.one(*HEADERS): self._string()},
            "queryParams": lambda: {words.one("q", words.text(20)): self._string()},
            "port": lambda: words.one(*self._ports),
            "sourceNamespace": lambda: words.one("shop", "k" * 63),
            "ignoreUriCase": lambda: words.often(0.5),
        }
        return words.some(fields, 1, 4)

    def _string(self, *, path: bool = False) -> dict[str, str]:
        words = self._words
        kind = words.one("exact", "prefix", "regex")
        plain = words.one(*PARTS, f"/{words.text(20)}") if path else words.one("", words.text())
        return {kind: words.one(*EXPRESSIONS) if kind == "regex" else plain}

    def _fault(self) -> dict[str, Any]:
        words = self._words
        share = {"value": words.one(0, 0.01, 33.3, 100)}
        return words.some(
            {
                "delay": lambda: {"fixedDelay": words.one(*_DURATIONS), "percentage": share},
                "abort": lambda: {
                    **words.one({"httpStatus": words.one(200, 599)}, {"grpcStatus": words.one(*_GRPC)}),
                    "percentage": share,
                },
            },
            1,
            2,
        )

    def _cors(self) -> dict[str, Any]:
        words = self._words
        fields: dict[str, Callable[[], Any]] = {
            "allowOrigins": lambda: words.several(self._string, 1, 2, 64),
            "allowMethods": lambda: ["GET", "*"],
            "allowHeaders": lambda: [words.one("*", *HEADERS)],
            "exposeHeaders": lambda: [words.one("*", *HEADERS)],
            "maxAge": lambda: words.one(*_DURATIONS),
            "allowCredentials": lambda: words.often(0.5),
            "unmatchedPreflights": lambda: words.one("FORWARD", "IGNORE"),
        }
        return words.some(fields, 1, 5)

    # --- routes of the Gateway API beside HTTPRoute

    def grpc_route(self, number: int, parent: dict[str, Any]) -> dict[str, Any]:
        words = self._words
        method = lambda: words.one(  # noqa: E731
            {"service": "a.B", "method": "C"},
            {"service": words.text(30)},
            {"type": "RegularExpression", "service": words.one(*EXPRESSIONS), "method": "x"},
        )
        header = lambda: {"name": words.one(*HEADERS), "value": words.text()}  # noqa: E731
        rule = lambda: {  # noqa: E731
            "matches": words.several(
                lambda: words.some({"method": method, "headers": lambda: words.several(header, 1, 2)}, 1, 2), 0, 1, 3
            ),
            "backendRefs": words.several(self.backend, 0, 1, 2),
        }
        spec = {"parentRefs": [parent], "rules": words.several(rule, 1, 2)}
        return self._object(API, "GRPCRoute", f"{self._name}-g{number}", spec, annotations=self.limits())

    def stream_route(self, number: int, parent: dict[str, Any]) -> dict[str, Any]:
        words = self._words
        kind = words.one("TCPRoute", "TLSRoute")
        spec: dict[str, Any] = {
            "parentRefs": [parent],
            "rules": [{"backendRefs": words.several(self.backend, 1, 2, 3)}],
        }
        if kind == "TLSRoute":
            spec["hostnames"] = words.rng.sample(HOSTS, words.rng.randint(1, 3))
        version = API if kind == "TLSRoute" else "gateway.networking.k8s.io/v1alpha2"
        return self._object(version, kind, f"{self._name}-c{number}", spec)

    def backend(self) -> dict[str, Any]:
        words = self._words
        name = words.one(self._name, self._name, self._name, "nobody")
        return {"name": name, "port": words.one(*self._ports), "weight": words.one(0, 1, 10, 1_000_000)}

    def limits(self) -> dict[str, str]:
        """Annotations."""
        words = self._words
        if words.often(0.6):
            return {}
        failure = words.one("", "", " deny", " allow")
        named = (f"header {words.one(*HEADERS)} ", f"claim {words.one('sub', 'https://a.example.com/x')} ")
        every = [f"{where}{whose}" for where in ("", "global ") for whose in ("", "client ", *named)]
        kinds = words.rng.sample(every, words.rng.randint(1, 4))
        count = lambda: words.one("1", "100", "999999999")  # noqa: E731
        parts = [
            f"{kind}{count()}/{words.one(*_LIMIT_UNITS)}{failure if kind.startswith('global') else ''}"
            for kind in kinds
        ]
        return {"ambient.mesh/rate-limit": ", ".join(parts)}

    # --- Telemetry

    def telemetry(self, ref: dict[str, Any]) -> dict[str, Any]:
        words = self._words
        tag = lambda: words.one(  # noqa: E731
            {"literal": {"value": words.text()}},
            {"header": {"name": words.one(*HEADERS), "defaultValue": words.text(9)}},
        )
        spans = words.one("spans", "zip", "nobody", None)
        logs = words.one("logs", "file", "spans", None)
        tracing: dict[str, Callable[[], Any]] = {
            "randomSamplingPercentage": lambda: words.one(0, 0.01, 100),
            "disableSpanReporting": lambda: words.often(0.3),
            "customTags": lambda: {words.text(20): tag() for _ in range(words.one(1, 4))},
            "providers": lambda: [{"name": spans}] if spans else [],
        }
        logging: dict[str, Callable[[], Any]] = {
            "disabled": lambda: words.often(0.3),
            "filter": lambda: {"expression": words.one("response.code >= 400", "response.code > 599")},
            "providers": lambda: [{"name": logs}] if logs else [],
        }
        spec: dict[str, Any] = {
            "targetRefs": [ref],
            "tracing": [words.some(tracing, 0, 4)],
            "accessLogging": [words.some(logging, 0, 3)],
        }
        return self._object("telemetry.istio.io/v1", "Telemetry", self._name, spec)
