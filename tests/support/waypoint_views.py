"""Views of waypoints for tests: one service of each protocol, endpoints in the mesh and beside it, policies."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_address

from ambient.kube.jwt_rules import JwtRule
from ambient.kube.policies import Operation, PolicyRule, Source, When
from ambient.kube.routing import Limit, RouteMatch, RouteRule
from ambient.kube.telemetry_values import SpanTag
from ambient.kube.traffic_values import Keepalive, Outliers, Pool, RetryBudget, TrafficPolicy
from ambient.waypoint.evidence import Evidence
from ambient.waypoint.exports import Collector, Exports
from ambient.waypoint.front import (
    Backend,
    Called,
    Destination,
    Direct,
    Front,
    FrontPort,
    Origination,
    Policy,
    Protocol,
    Route,
    View,
    Wild,
)
from tests.support import tunnel_certs

CLIENT = "cluster.local/ns/shop/sa/client"
TUNNEL = Backend(ip_address("10.1.2.1"), 8080, "spiffe://cluster.local/ns/shop/sa/web", "web-1")
TUNNEL6 = Backend(ip_address("fd01::1"), 8080, "spiffe://cluster.local/ns/shop/sa/web", "web-2", weight=3)
PLAIN = Backend(ip_address("10.9.0.1"), 80, workload="outside")
RULE = PolicyRule(
    sources=(Source(principals=(CLIENT, "*/sa/other"), not_namespaces=("evil",), ip_blocks=("10.1.0.0/16",)),),
    operations=(Operation(methods=("GET",), paths=("/public/*", "/x/{*}/y"), hosts=("web.shop",), ports=(80,)),),
    when=(When(key="request.headers[x-team]", values=("red",)), When(key="source.serviceAccount", values=("client",))),
)
LAYER_4 = PolicyRule(sources=(Source(namespaces=("shop",)),))


def policy(name: str, action: str, *rules: PolicyRule, dry_run: bool = False) -> Policy:
    return Policy("shop", name, action, rules, dry_run)


def front(
    *policies: Policy, name: str = "web", ports: tuple[FrontPort, ...] = (), tokens: tuple[JwtRule, ...] = ()
) -> Front:
    every = (
        FrontPort(80, Protocol.HTTP, (TUNNEL, TUNNEL6, PLAIN)),
        FrontPort(81, Protocol.HTTP2, (TUNNEL,)),
        FrontPort(9000, Protocol.TCP, (TUNNEL,)),
        FrontPort(7000, Protocol.AUTO, (TUNNEL,)),
    )
    addresses = (ip_address("10.96.0.1"), ip_address("fd96::1"))
    return Front("shop", f"{name}.shop.svc.cluster.local", addresses, ports or every, policies, tokens=tokens)


def view(*fronts: Front, xfcc: bool = False) -> View:
    return View("shop", "waypoint", ("cluster.local",), fronts, xfcc)


EVERY_KIND = view(
    front(
        policy("deny", "DENY", RULE),
        policy("allow", "ALLOW", RULE, LAYER_4),
        policy("look", "AUDIT", LAYER_4),
        policy("try", "DENY", LAYER_4, dry_run=True),
    ),
    front(policy("plain", "ALLOW", LAYER_4), name="db", ports=(FrontPort(5432, Protocol.AUTO, (TUNNEL,)),)),
    xfcc=True,
)

KEYS = (
    '{"keys":[{"kty":"EC","crv":"P-256","kid":"a","x":"MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4",'
    '"y":"4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM"},{"kty":"later","use":"enc"}]}'
)
"""The public key of RFC 7517, appendix A.1, and one of a kind that nobody knows."""
OFF_THE_CURVE = '{"keys":[{"kty":"EC","crv":"P-256","x":"AQ","y":"AQ"}]}'
BELIEVED = (
    JwtRule(issuer="https://issuer.example.com", audiences=("web", "shop"), keys=KEYS),
    JwtRule(
        issuer="https://partner.example.com",
        keys=KEYS,
        from_headers=(("x-token", ""), ("x-other", "Token ")),
        from_params=("token",),
        from_cookies=("session",),
        forward=True,
        payload_header="x-payload",
        claim_headers=(("x-sub", "sub"), ("x-team", "org.team")),
        space_delimited=("groups",),
    ),
    JwtRule(issuer="https://fetched.example.com", keys_url="https://fetched.example.com/keys"),
    JwtRule(issuer="https://broken.example.com", keys=OFF_THE_CURVE),
)
EVERY_TOKEN = view(
    front(tokens=BELIEVED),
    front(name="one", ports=(FrontPort(8001, Protocol.HTTP, (TUNNEL,)),), tokens=BELIEVED[:1]),
    front(name="lost", ports=(FrontPort(8002, Protocol.AUTO, (TUNNEL,)),), tokens=BELIEVED[3:]),
)

_LIMITED = RouteRule(limits=(Limit(100, 60), Limit(10, 1, per_client=True)))
ROUTE = "HTTPRoute/shop/web"
_SHARED = RouteRule(
    limits=(Limit(9, 3600, route=ROUTE, strict=True), Limit(7, 86_400, per_client=True, route=ROUTE), Limit(5, 1))
)
COUNTER = Front(
    "limits", "ambient-ratelimit.limits.svc.cluster.local", (), (FrontPort(8081, Protocol.HTTP2, (TUNNEL,)),)
)
_TRAFFIC = TrafficPolicy(
    pool=Pool(1, 250, Keepalive(3, 7000, 2000), 60_000, 5000, 2, 3, 4, 5, 6000, 7, upgrade="UPGRADE"),
    outliers=Outliers(1, 2, 3, True, 4000, 5000, 60, 70),
    retry_budget=RetryBudget(),
)
_HERE = Destination("web.shop.svc.cluster.local", 80)
EVERY_LIMIT = replace(
    view(
        replace(
            front(ports=(FrontPort(80, Protocol.HTTP, (TUNNEL,), _TRAFFIC), FrontPort(90, Protocol.TCP, (), _TRAFFIC))),
            routes=tuple(Route("shop/web/0", 80, RouteMatch(), rule, (_HERE,)) for rule in (_LIMITED, _SHARED)),
        )
    ),
    limiter=COUNTER,
)

EVERY_EXPORT = replace(
    EVERY_KIND, exports=Exports(Collector("zipkin", "10.1.1.9", 9411, 50.0), Collector("otlp", "collector.obs", 4317))
)
_CA = Evidence("upstream/authority/Secret/shop/partner", tunnel_certs.Authority("partner").roots)
_OWN = tunnel_certs.Authority("partner").mint.leaf("spiffe://partner.example.com/egress")
_MUTUAL = Origination(
    "api.example.com",
    ("api.example.com", "spiffe://partner.example.com/api", "10.9.0.1"),
    _CA,
    Evidence("upstream/server/shop/partner", _OWN.chain, _OWN.key),
)
_NAMED = Backend("api.example.com", 443, workload="api")
EVERY_ORIGINATION = view(
    front(
        ports=(
            FrontPort(80, Protocol.HTTP, (TUNNEL, PLAIN), tls=_MUTUAL),
            FrontPort(81, Protocol.HTTP2, (PLAIN,), tls=Origination("api.example.com")),
            FrontPort(90, Protocol.TCP, (PLAIN,), tls=_MUTUAL),
        )
    ),
    front(name="named", ports=(FrontPort(80, Protocol.AUTO, (_NAMED,), tls=_MUTUAL),)),
)
"""TLS that the waypoint begins: inside of a tunnel, outside of the mesh, with an endpoint that has a name."""

_WILD = Wild("example.com", 443, ("*.deep.example.com", "api.example.com"))
EVERY_WILD = view(
    Front(
        "shop",
        "*.example.com",
        (ip_address("240.240.0.1"),),
        (
            FrontPort(80, Protocol.HTTP, tls=Origination("", (), _CA, as_asked=True), wild=_WILD),
            FrontPort(8080, Protocol.HTTP2, wild=replace(_WILD, port=8080, elsewhere=())),
            FrontPort(
                81, Protocol.HTTP, tls=Origination("one.example.com", ("x.org",), _CA, as_asked=True), wild=_WILD
            ),
            FrontPort(82, Protocol.HTTP, tls=Origination("", as_asked=True), wild=_WILD),
            FrontPort(443, Protocol.TCP, wild=_WILD),
        ),
        (policy("deny", "DENY", RULE), policy("allow", "ALLOW", LAYER_4)),
    )
)
"""Names that clients choose: in HTTP, with TLS that the waypoint begins in all ways, and in TLS that it carries."""

OWN_EXPORTS = replace(
    view(
        replace(
            front(),
            exports=Exports(
                Collector("otlp", "own.obs", 4317),
                Collector("otlp", "own.obs", 4317),
                (SpanTag("env", "literal", "prod"), SpanTag("team", "header", "x-team", "none")),
                400,
            ),
        )
    )
)
OTLP_SPANS = replace(view(front()), exports=Exports(Collector("otlp", "fd00::9", 4317)))

DIRECT = Direct(
    "shop",
    "web",
    "spiffe://cluster.local/ns/shop/sa/web",
    (
        Called((ip_address("10.1.2.1"), ip_address("fd01::1")), ((8080, Protocol.HTTP), (9000, Protocol.TCP))),
        Called((ip_address("10.1.2.2"),)),
    ),
)
EVERY_DIRECT = replace(
    EVERY_KIND,
    direct=(
        replace(DIRECT, policies=EVERY_KIND.fronts[0].policies),
        Direct("shop", "old~plain", "", (Called((ip_address("10.1.2.3"),)),)),
        Direct(
            "shop",
            "safe",
            "spiffe://cluster.local/ns/shop/sa/safe",
            (Called((ip_address("10.1.2.4"),)),),
            tokens=BELIEVED,
        ),
    ),
)
