"""A gateway of every kind of listener, for tests of what Envoy is told."""

from __future__ import annotations

from ipaddress import ip_address

from ambient.kube.routing import RouteMatch, RouteRule
from ambient.waypoint.door import Clients, Door, GatewayView, Site, Through, Topology
from ambient.waypoint.evidence import Evidence
from ambient.waypoint.front import Backend, Destination, Front, FrontPort, Protocol, Route
from tests.support.gateway_records import site
from tests.support.tunnel_certs import Authority
from tests.support.waypoint_views import BELIEVED, LAYER_4, RULE, TUNNEL, policy

LEAF = site("a.example.com")
WEB = "web.shop.svc.cluster.local"
GUARDED = "guarded.shop.svc.cluster.local"


def route(port: int, hostname: str = WEB) -> Route:
    return Route("shop/r/0", port, RouteMatch(), RouteRule(), (Destination(hostname, 80),))


def pool(hostname: str, *backends: Backend) -> Front:
    return Front("shop", hostname, (ip_address("10.96.0.1"),), (FrontPort(80, Protocol.HTTP, backends),))


EVERY_DOOR = GatewayView(
    "shop",
    "front",
    ("cluster.local",),
    (
        Door("http", 80, "HTTP", sites=(Site("web.example.com", (route(80),)), Site("*"))),
        Door("apps", 80, "HTTP", "*.apps.example.com", (Site("*.apps.example.com", (route(80, GUARDED),)),)),
        Door("tls", 443, "HTTPS", "a.example.com", (Site("a.example.com", (route(443),)),), ("server/shop/site",)),
        Door(
            "mutual",
            443,
            "HTTPS",
            "",
            (Site("*", (route(443),)),),
            ("server/shop/site",),
            Clients("authority/ConfigMap/shop/ca"),
            ("a.example.com",),
        ),
        Door("passed", 443, "TLS", "p.example.com", destinations=(("p.example.com", (Destination(WEB, 80),)),)),
        Door("shared", 444, "TLS", "", destinations=(("", (Destination(WEB, 80, 3), Destination(GUARDED, 80, 1))),)),
    ),
    (pool(WEB, TUNNEL), pool(GUARDED, Backend(ip_address("10.96.0.2"), 80, through="shop/waypoint"))),
    (Through("shop/waypoint", ("10.1.0.8",), ("spiffe://cluster.local/ns/shop/sa/waypoint",)),),
    (
        Evidence("server/shop/site", LEAF.chain, LEAF.key),
        Evidence("authority/ConfigMap/shop/ca", Authority("enterprise").roots),
    ),
    (policy("deny", "DENY", RULE), policy("allow", "ALLOW", LAYER_4), policy("try", "DENY", LAYER_4, dry_run=True)),
    BELIEVED,
    Topology(1, True),
)
