"""Random services behind a waypoint with everything that people may write of them: whatever our parsers take.

Values are what people write and what they had better not: signs of every kind, at the longest that is allowed.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from ipaddress import ip_address
from typing import Any, Final

from ambient.control.derive import derive
from ambient.control.derive_front import Fronts
from ambient.control.derive_world import DeriveSettings
from ambient.errors import InvalidInput
from ambient.kube.mesh_config import read_mesh_config
from ambient.kube.networking import Gateway
from ambient.kube.objects import Record, parse_object
from ambient.kube.routing import PathMatch, RouteMatch, RouteRule
from ambient.waypoint.deploy import XFCC
from ambient.waypoint.front import Protocol, Route, View
from ambient.waypoint.resources import resources
from ambient.waypoint.tunnel import inner
from tests.support.builders import raw, records
from tests.support.envoy_fed import FedEnvoy, Told
from tests.support.waypoint_records import NAMESPACE, gateway, pod, policy, service
from tests.support.waypoint_views import KEYS, OFF_THE_CURVE

_SIGNS: Final = (
    "abcABC0189-_./*%{}[]()|\\^$+?#&=;:,'\"<>@!~` \t\u00e9\u4e2d\u212a\u017f\U0001f600\u0301\u200b\ufeff\x7f\x01\r\n\0"
)
_DRAWS: Final = 20
_PROTOCOLS: Final = ("http", "http2", "grpc", "tcp", "tls", "", "kubernetes.io/h2c", "kubernetes.io/ws")
_HEADERS: Final = ("x-team", "X-Odd.Name", "cookie", "host", ":authority", ":method", ":path", "x!#$%&'*+-.^_`|~", "a")
_PARTS: Final = ("/", "/a", "/v1/x", "/a%20b", "/~u/\u00e9", "/x.y", "/" + "p" * 1000)
_EXPRESSIONS: Final = (
    "/a.*", "(?:a|b)+", r"/v\d{1,3}/[^/]+", "^x$", "a+?", r"(?:\d{1,3}\.){3}\d{1,3}", ".*", "[^a-z]*", r"\w{1,1000}",
    "a{1000}", "(?:ab?){500}", ".{0,1000}", r"\S+\.\w{2,}", "(a|b|(c|d)*)*", "x" * 1024, "[\u4e00-\u9fff]{100}",
)  # fmt: skip
_CLAIMS: Final = ("sub", "scope", "org][team", "groups", "a b", "\u00e9", "x.y")


PROVIDERS: Final = """
extensionProviders:
- name: by-grpc
  envoyExtAuthzGrpc:
    service: authz.shop.svc.cluster.local
    port: 9000
    timeout: 0.5s
    includeRequestBodyInCheck: {maxRequestBytes: 1000, allowPartialMessage: true, packAsBytes: true}
- name: by-http
  envoyExtAuthzHttp:
    service: shop/authz.shop.svc.cluster.local
    port: 8000
    pathPrefix: /check
    statusOnError: "503"
    includeRequestHeadersInCheck: [x-a, "x-b*"]
    includeAdditionalHeadersInCheck: {x-from: waypoint}
    headersToUpstreamOnAllow: [x-user, x-team]
    headersToDownstreamOnDeny: [x-why, "*"]
    headersToDownstreamOnAllow: [x-ok]
"""


class Model:
    """The objects of one service, drawn from `rng`. `refused` counts what our parsers did not take."""

    def __init__(self, rng: random.Random, number: int) -> None:
        self._rng = rng
        self._name = f"s{number}"
        self._number = number
        self.refused = 0

    def objects(self) -> Iterator[Record]:
        rng = self._rng
        ports = rng.sample((80, 81, 443, 8080, 9000, 65535), rng.randint(1, 3))
        listed = [{"name": f"p{port}", "port": port, "appProtocol": rng.choice(_PROTOCOLS) or None} for port in ports]
        ip = str(ip_address("10.96.0.0") + 1 + self._number)
        yield parse_object(_without_none(service(self._name, *listed, ip=ip)), "model")
        draws: tuple[tuple[Callable[[int], dict[str, Any]], tuple[int, ...]], ...] = (
            (self._pod, (0, 1, 1, 3)),
            (self._policy, (0, 1, 2, 3)),
            (self._tokens, (0, 0, 1, 2)),
            (lambda number: self._route(number, ports), (0, 0, 1, 2)),
        )
        for draw, counts in draws:
            for number in range(rng.choice(counts)):
                yield from self._read(lambda draw=draw, number=number: draw(number))  # type: ignore[misc]

    def _read(self, draw: Callable[[], dict[str, Any]]) -> Iterator[Record]:
        """The first of some that is valid."""
        for _ in range(_DRAWS):
            try:
                yield parse_object(_without_none(draw()), "model")
                return
            except InvalidInput:
                self.refused += 1

    def _pod(self, number: int) -> dict[str, Any]:
        rng = self._rng
        ip = str(ip_address("10.1.0.0") + 1 + self._number * 4 + number)
        return pod(f"{self._name}-{number}", ip, app=self._name, ready=rng.random() < 0.8, mesh=rng.random() < 0.8)

    # --- policies

    def _policy(self, number: int) -> dict[str, Any]:
        rng = self._rng
        action = rng.choice(("ALLOW", "ALLOW", "DENY", "DENY", "AUDIT", "CUSTOM"))
        spec: dict[str, Any] = {"rules": [self._rule() for _ in range(rng.choice((0, 1, 2, 5)))]}
        if action == "CUSTOM":
            spec["provider"] = {"name": rng.choice(("by-grpc", "by-http", "nobody"))}
        made = policy(f"{self._name}-p{number}", action, {"kind": "Service", "name": self._name}, **spec)
        if rng.random() < 0.2:
            made["metadata"]["annotations"] = {"istio.io/dry-run": "true"}
        return made

    def _rule(self) -> dict[str, Any]:
        made: dict[str, Any] = {}
        if self._rng.random() < 0.6:
            made["from"] = [{"source": self._some(self._sources(), 2)} for _ in range(self._rng.randint(1, 2))]
        if self._rng.random() < 0.7:
            made["to"] = [{"operation": self._some(self._operations(), 3)} for _ in range(self._rng.randint(1, 2))]
        if self._rng.random() < 0.5:
            made["when"] = [self._when() for _ in range(self._rng.randint(1, 2))]
        return made

    def _some(self, fields: dict[str, Callable[[], Any]], most: int) -> dict[str, list[Any]]:
        rng = self._rng
        chosen = rng.sample(sorted(fields), rng.randint(1, most))
        return {name: [fields[name]() for _ in range(rng.randint(1, 3))] for name in chosen}

    def _sources(self) -> dict[str, Callable[[], Any]]:
        rng = self._rng
        principal = lambda: rng.choice(("cluster.local/ns/shop/sa/web", "*/sa/x", "*", "other.td/*", self._text()))  # noqa: E731
        token = lambda: rng.choice(("*", "https://i.example.com/joe", "*/joe", "iss/*", "a*/b", self._text()))  # noqa: E731
        block = lambda: rng.choice(("10.1.0.0/16", "10.1.2.3", "fd00::/8", "0.0.0.0/0", "::/0", "::ffff:1.2.3.4"))  # noqa: E731
        made: dict[str, Callable[[], Any]] = {}
        for title, draw in (
            ("principals", principal),
            ("requestPrincipals", token),
            ("namespaces", self._glob),
            ("ipBlocks", block),
            ("remoteIpBlocks", block),
            ("trustDomains", self._glob),
        ):
            made[title] = draw
            made[f"not{title[0].upper()}{title[1:]}"] = draw
        return made

    def _operations(self) -> dict[str, Callable[[], Any]]:
        rng = self._rng
        port = lambda: rng.choice(("80", "443", "65535"))  # noqa: E731
        method = lambda: rng.choice(("GET", "P*", "*", self._glob()))  # noqa: E731
        path = lambda: rng.choice((*_PARTS, "/a/*", "*.js", "*", "/u/{*}/c", "/{**}", "{*}" * 300, self._glob()))  # noqa: E731
        made: dict[str, Callable[[], Any]] = {}
        for title, draw in (("hosts", self._glob), ("ports", port), ("methods", method), ("paths", path)):
            made[title] = draw
            made[f"not{title[0].upper()}{title[1:]}"] = draw
        return made

    def _when(self) -> dict[str, Any]:
        rng = self._rng
        values: dict[str, Callable[[], str]] = {
            f"request.headers[{rng.choice(_HEADERS)}]": self._glob,
            f"request.headers[{self._text(20)}]": self._glob,
            f"request.auth.claims[{rng.choice(_CLAIMS)}]": self._glob,
            f"request.auth.claims[{self._text(20)}]": self._glob,
            "request.auth.principal": lambda: rng.choice(("*", "i/s", self._glob())),
            "request.auth.audiences": self._glob,
            "request.auth.presenter": self._glob,
            "source.namespace": self._glob,
            "source.principal": self._glob,
            "source.serviceAccount": lambda: rng.choice(("web", "shop/web", "a.b")),
            "source.trustDomain": self._glob,
            "source.ip": lambda: "10.0.0.0/8",
            "remote.ip": lambda: "fd00::1",
            "destination.ip": lambda: "10.96.0.0/16",
            "destination.port": lambda: "80",
            "connection.sni": self._glob,
            "experimental.envoy.filters.a.b[c]": self._glob,
        }
        key = rng.choice(sorted(values))
        sides = rng.choice((["values"], ["notValues"], ["values", "notValues"]))
        return {"key": key, **{side: [values[key]() for _ in range(rng.randint(1, 2))] for side in sides}}

    # --- tokens

    def _tokens(self, number: int) -> dict[str, Any]:
        rng = self._rng
        spec = {
            "targetRefs": [{"group": "", "kind": "Service", "name": self._name}],
            "jwtRules": [self._jwt_rule() for _ in range(rng.randint(1, 3))],
        }
        made = raw("RequestAuthentication", f"{self._name}-t{number}", spec, namespace="shop")
        return {**made, "apiVersion": "security.istio.io/v1"}

    def _jwt_rule(self) -> dict[str, Any]:
        rng = self._rng
        odd = {
            "kty": rng.choice(("RSA", "EC", "OKP", "oct", "new")),
            **{name: "AQAB" for name in "nexyk"},
            "crv": "P-521",
        }
        keys = rng.choice((KEYS, OFF_THE_CURVE, json.dumps({"keys": [odd, {**odd, "kid": 1, "alg": self._text(9)}]})))
        made: dict[str, Any] = {"issuer": rng.choice(("https://i.example.com", self._text(40)))}
        made[rng.choice(("jwks", "jwks", "jwksUri"))] = keys
        if "jwksUri" in made:
            made["jwksUri"] = "https://i.example.com/keys"
        header = lambda: rng.choice(("x-token", "authorization", "X-A!", self._text(9)))  # noqa: E731
        fields: dict[str, Callable[[], Any]] = {
            "audiences": lambda: [self._text(20)],
            "fromHeaders": lambda: [{"name": header(), "prefix": rng.choice(("", "Bearer ", self._text(9)))}],
            "fromParams": lambda: [self._text(9)],
            "fromCookies": lambda: [self._text(9)],
            "forwardOriginalToken": lambda: True,
            "outputPayloadToHeader": header,
            "outputClaimToHeaders": lambda: [{"header": header(), "claim": rng.choice(("sub", "a.b", self._text(9)))}],
            "spaceDelimitedClaims": lambda: [self._text(9)],
        }
        for name in rng.sample(sorted(fields), rng.randint(0, 3)):
            made[name] = fields[name]()
        return made

    # --- routes

    def _route(self, number: int, ports: list[int]) -> dict[str, Any]:
        rng = self._rng
        parent = {"group": "", "kind": "Service", "name": self._name, "port": rng.choice((None, *ports))}
        spec = {"parentRefs": [parent], "rules": [self._route_rule(ports) for _ in range(rng.choice((1, 1, 2, 8)))]}
        made = raw("HTTPRoute", f"{self._name}-r{number}", spec, namespace="shop")
        return {**made, "apiVersion": "gateway.networking.k8s.io/v1"}

    def _route_rule(self, ports: list[int]) -> dict[str, Any]:
        rng = self._rng
        prefixes = rng.random() < 0.5
        made: dict[str, Any] = {"matches": [self._match(prefixes) for _ in range(rng.choice((1, 1, 2, 8)))]}
        filters = [self._filter(kind, prefixes) for kind in rng.sample(range(5), rng.randint(0, 3))]
        made["filters"] = filters
        if not any(one["type"] == "RequestRedirect" for one in filters):
            made["backendRefs"] = [self._backend(ports) for _ in range(rng.choice((0, 1, 1, 2, 3)))]
        if rng.random() < 0.3:
            made["timeouts"] = {"request": rng.choice(("0s", "1ms", "10s", "99999h")), "backendRequest": "1ms"}
        return made

    def _backend(self, ports: list[int]) -> dict[str, Any]:
        rng = self._rng
        name = rng.choice((self._name, self._name, "nobody"))
        return {"name": name, "port": rng.choice(ports), "weight": rng.choice((0, 1, 10, 1_000_000))}

    def _match(self, prefix: bool) -> dict[str, Any]:
        rng = self._rng
        kind = "PathPrefix" if prefix else rng.choice(("Exact", "RegularExpression", "PathPrefix"))
        value = rng.choice(_EXPRESSIONS) if kind == "RegularExpression" else rng.choice((*_PARTS, f"/{self._text(20)}"))
        made: dict[str, Any] = {"path": {"type": kind, "value": value}}
        for field in ("headers", "queryParams"):
            if rng.random() < 0.3:
                made[field] = [self._named(field) for _ in range(rng.randint(1, 3))]
        if rng.random() < 0.3:
            made["method"] = rng.choice(("GET", "CONNECT", "PATCH"))
        return made

    def _named(self, field: str) -> dict[str, Any]:
        rng = self._rng
        name = rng.choice(_HEADERS) if field == "headers" else rng.choice(("q", self._text(20)))
        if rng.random() < 0.4:
            return {"name": name, "type": "RegularExpression", "value": rng.choice(_EXPRESSIONS)}
        return {"name": name, "value": self._text()}

    def _filter(self, kind: int, prefix: bool) -> dict[str, Any]:
        rng = self._rng
        path = (
            {"type": "ReplacePrefixMatch", "replacePrefixMatch": rng.choice(("", *_PARTS))}
            if prefix
            else {"type": "ReplaceFullPath", "replaceFullPath": rng.choice(("", *_PARTS))}
        )
        if kind in (0, 1):
            side = ("request", "response")[kind]
            edit = {
                "set": [{"name": rng.choice(_HEADERS), "value": self._text()}],
                "add": [{"name": "x-b", "value": rng.choice(("%", "%REQ(x)%", "%%START_TIME%", self._text()))}],
                "remove": ["x-c", rng.choice(_HEADERS)],
            }
            chosen = {name: edit[name] for name in rng.sample(sorted(edit), rng.randint(1, 3))}
            return {"type": f"{side.capitalize()}HeaderModifier", f"{side}HeaderModifier": chosen}
        if kind == 2:
            made = {"scheme": "https", "hostname": "x.example.com", "port": 8443, "path": path, "statusCode": 307}
            chosen = {name: made[name] for name in rng.sample(sorted(made), rng.randint(0, 4))}
            return {"type": "RequestRedirect", "requestRedirect": chosen}
        if kind == 3:
            rewrite = {"hostname": "h.example.com", "path": path}
            chosen = {name: rewrite[name] for name in rng.sample(sorted(rewrite), rng.randint(0, 2))}
            return {"type": "URLRewrite", "urlRewrite": chosen}
        return {
            "type": "RequestMirror",
            "requestMirror": {"backendRef": {"name": self._name, "port": 80}, "percent": 7},
        }

    # --- words

    def _text(self, most: int = 0) -> str:
        rng = self._rng
        longest = most or rng.choice((3, 12, 12, 40, 1024))
        signs = rng.choice((_SIGNS, _SIGNS[:44].replace("*", ""), "abc-", "abc"))
        return "".join(rng.choice(signs) for _ in range(rng.randint(1, longest)))

    def _glob(self) -> str:
        text = self._rng.choice(("web", "shop", "k" * 1023, self._text(), self._text().replace("*", "")))
        return self._rng.choice((text, f"{text}*", f"*{text}", "*"))


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(one) for key, one in value.items() if one is not None}
    return [_without_none(one) for one in value] if isinstance(value, list) else value


@dataclass(frozen=True)
class Models:
    """So many services as one waypoint's view, the objects of each kind behind it, and how many our parsers did not
    take."""

    view: View
    kinds: Counter[str]
    unfit: int


def models(seed: int, count: int) -> Models:
    rng = random.Random(seed)
    made = [Model(random.Random(rng.random()), number) for number in range(count)]
    door = gateway()
    if rng.random() < 0.5:
        door["metadata"]["annotations"] = {XFCC: "true"}
    authz = service("authz", {"name": "grpc", "port": 9000}, {"name": "http", "port": 8000}, ip="10.96.255.1")
    found = records(NAMESPACE, door, authz, *(one for model in made for one in model.objects()))
    derived = derive(found, DeriveSettings())
    aliases = [f"td{number}.example" for number in range(rng.choice((0, 0, 3)))]
    fronts = Fronts(("cluster.local", *aliases), "istio-system")
    fronts.configure(read_mesh_config(PROVIDERS, "test"))
    fronts.update(found, derived)
    record = found.find(Gateway, "shop", "waypoint")
    assert record is not None
    view = fronts.view(derived.waypoints["shop/waypoint"], record)
    kinds = Counter(one.kind for one in found.by_key.values())
    return Models(view, kinds, sum(one.refused for one in made))


def spoilt(good: Models) -> tuple[Models, str]:
    """With one expression that is none, and the name of the table that it is in."""
    fronts = list(good.view.fronts)
    at = next(number for number, front in enumerate(fronts) if front.ports[0].protocol is Protocol.HTTP)
    port = fronts[at].ports[0].number
    match = RouteMatch(PathMatch("RegularExpression", "("))
    fronts[at] = replace(fronts[at], routes=(Route("odd", port, match, RouteRule()),))
    return replace(good, view=replace(good.view, fronts=tuple(fronts))), inner(fronts[at], port)


@dataclass(frozen=True)
class Taken:
    resources: int
    refused: dict[str, str]


async def take(told: Told, envoy: FedEnvoy, found: Models) -> Taken:
    """Give an Envoy the configuration of these models in the place of what it has."""
    made = list(resources(found.view))
    told.tell(made)
    return Taken(len(made), await envoy.settled())
