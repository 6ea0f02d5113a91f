"""Values of routes, of the Gateway API's and of VirtualServices alike, as written by people: what is matched, what is
done, and where it goes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Final

from ambient.kube.records import Record

CONTROLLER: Final = "istio.io/mesh-controller"
"""Who speaks for the mesh in the status of a route."""
GATEWAY_CONTROLLER: Final = "ambient.mesh/gateway-controller"
"""Who speaks for gateways there, and is the controller of their classes: not Istio's, which may be there as well."""


@dataclass(frozen=True, slots=True)
class PathMatch:
    """`kind` is Exact, PathPrefix (whole segments), RegularExpression (then the whole path has to match) or Prefix
    (letter by letter). `any_case`: large and small letters are alike."""

    kind: str = "PathPrefix"
    value: str = "/"
    any_case: bool = False


@dataclass(frozen=True, slots=True)
class TextMatch:
    """A header or query parameter that has to be there with this value. `how` is Exact, RegularExpression, Prefix or
    Present (then `value` is ""). `absent`: it must not be there so."""

    name: str
    value: str
    how: str = "Exact"
    absent: bool = False


@dataclass(frozen=True, slots=True)
class RouteMatch:
    """All parts have to hold. `method` "": any. `namespace`: the client's, by its certificate, "": any."""

    path: PathMatch = PathMatch()
    headers: tuple[TextMatch, ...] = ()
    query: tuple[TextMatch, ...] = ()
    method: str = ""
    namespace: str = ""


@dataclass(frozen=True, slots=True)
class HeaderEdit:
    """`set` and `add` are (name, value)."""

    set: tuple[tuple[str, str], ...] = ()
    add: tuple[tuple[str, str], ...] = ()
    remove: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class BackendRef:
    """`group` and `kind` as written; "" and Service is what we send to, and kind Hostname of a VirtualService: then
    `name` is a host, `port` 0 the one that was asked for, and `subset` one of its DestinationRule's. `namespace` "":
    the route's own."""

    name: str
    port: int = 0
    weight: int = 1
    namespace: str = ""
    group: str = ""
    kind: str = "Service"
    subset: str = ""
    request: HeaderEdit = HeaderEdit()
    response: HeaderEdit = HeaderEdit()


@dataclass(frozen=True, slots=True)
class PathEdit:
    """`kind` is ReplaceFullPath, ReplacePrefixMatch or RegularExpression: then what `pattern` fits is replaced."""

    kind: str
    value: str
    pattern: str = ""


@dataclass(frozen=True, slots=True)
class Redirect:
    """What is "" or 0 stays as it was asked for."""

    scheme: str = ""
    hostname: str = ""
    port: int = 0
    path: PathEdit | None = None
    status: int = 302


@dataclass(frozen=True, slots=True)
class Rewrite:
    hostname: str = ""
    path: PathEdit | None = None


@dataclass(frozen=True, slots=True)
class Mirror:
    """`share`: of a million requests so many are sent there as well."""

    backend: BackendRef
    share: int = 1_000_000


@dataclass(frozen=True, slots=True)
class Retry:
    """`attempts` 0: none. `codes`: statuses that are worth another; `on`: Envoy's words for other reasons. Times are
    milliseconds, None: not given."""

    attempts: int = 1
    codes: tuple[int, ...] = ()
    on: tuple[str, ...] = ()
    backoff_ms: int | None = None
    per_try_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Cors:
    """`origins`: matches without a name. `forward`: a preflight that fits none of them goes to the application."""

    origins: tuple[TextMatch, ...] = ()
    methods: tuple[str, ...] = ()
    headers: tuple[str, ...] = ()
    exposed: tuple[str, ...] = ()
    max_age_s: int | None = None
    credentials: bool = False
    forward: bool = True


@dataclass(frozen=True, slots=True)
class Fault:
    """What is done to a share of the requests, in parts of a million: a delay, and an answer in the application's
    place (`status` of HTTP or `grpc`)."""

    delay_ms: int = 0
    delay_share: int = 0
    status: int | None = None
    grpc: int | None = None
    abort_share: int = 0


@dataclass(frozen=True, slots=True)
class Session:
    """A client stays with the endpoint that it got, told by a cookie or header called `name`. `ttl_ms` 0: the cookie
    lasts until the browser ends."""

    name: str
    header: bool = False
    ttl_ms: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """What the proxy says itself."""

    status: int
    body: str = ""


@dataclass(frozen=True, slots=True)
class Limit:
    """`count` requests in `period_s` seconds; `per_client`: of each identity by itself; `header`, `claim`: of each
    value of that header, or of that claim of an accepted token, by itself, and of requests without it together.
    `route`: all proxies count for that route together, "": each for itself. `strict`: where nobody can count for all,
    requests are refused, else they pass."""

    count: int
    period_s: int
    per_client: bool = False
    route: str = ""
    strict: bool = False
    header: str = ""
    claim: str = ""


@dataclass(frozen=True, slots=True)
class RouteRule:
    """A request that one of `matches` fits is redirected, answered, or goes to one of `backends`. Timeouts are
    milliseconds, 0: none, None: not given."""

    matches: tuple[RouteMatch, ...] = (RouteMatch(),)
    backends: tuple[BackendRef, ...] = ()
    request: HeaderEdit = HeaderEdit()
    response: HeaderEdit = HeaderEdit()
    redirect: Redirect | None = None
    rewrite: Rewrite | None = None
    mirrors: tuple[Mirror, ...] = ()
    timeout_ms: int | None = None
    backend_timeout_ms: int | None = None
    retry: Retry | None = None
    cors: Cors | None = None
    fault: Fault | None = None
    session: Session | None = None
    answer: Answer | None = None
    limits: tuple[Limit, ...] = ()


@dataclass(frozen=True, slots=True)
class ParentRef:
    """`port` 0: all of the parent's. `namespace` "": the route's own. `section`: a listener of a Gateway, "": any."""

    group: str
    kind: str
    name: str
    namespace: str = ""
    port: int = 0
    section: str = ""


@dataclass(frozen=True, slots=True)
class StreamRule:
    """Where connections go that are carried unread. `names`: only those whose TLS asks for one of these, () for all;
    `port`: only those to this port, 0: any."""

    backends: tuple[BackendRef, ...]
    names: tuple[str, ...] = ()
    port: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AttachedRoute(Record):
    """What all routes of the Gateway API have."""

    parents: tuple[ParentRef, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestRoute(AttachedRoute):
    """About requests. `hostnames` mean something at a Gateway only; (): any."""

    hostnames: tuple[str, ...] = ()
    rules: tuple[RouteRule, ...] = field(default=(RouteRule(),))


@dataclass(frozen=True, slots=True, kw_only=True)
class HTTPRoute(RequestRoute):
    kind: ClassVar[str] = "HTTPRoute"


@dataclass(frozen=True, slots=True, kw_only=True)
class GRPCRoute(RequestRoute):
    kind: ClassVar[str] = "GRPCRoute"


@dataclass(frozen=True, slots=True, kw_only=True)
class StreamRoute(AttachedRoute):
    """About connections."""

    streams: tuple[StreamRule, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class TCPRoute(StreamRoute):
    kind: ClassVar[str] = "TCPRoute"


@dataclass(frozen=True, slots=True, kw_only=True)
class TLSRoute(StreamRoute):
    kind: ClassVar[str] = "TLSRoute"


@dataclass(frozen=True, slots=True)
class Grant:
    """Routes of `kind` in `namespace` may send to the Service called `name` ("": to any)."""

    group: str
    kind: str
    namespace: str
    to_group: str
    to_kind: str
    name: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceGrant(Record):
    kind: ClassVar[str] = "ReferenceGrant"
    grants: tuple[Grant, ...] = ()


@dataclass(frozen=True, slots=True)
class VirtualRule:
    """One entry of a VirtualService's `http`. `ports`: beside each of the rule's matches the port that it is about, 0:
    any."""

    rule: RouteRule
    ports: tuple[int, ...] = (0,)


@dataclass(frozen=True, slots=True, kw_only=True)
class VirtualService(Record):
    """`hosts` and `export_to` as written. `mesh`: it is for calls inside of the mesh."""

    kind: ClassVar[str] = "VirtualService"
    hosts: tuple[str, ...] = ()
    export_to: tuple[str, ...] = ()
    mesh: bool = True
    http: tuple[VirtualRule, ...] = ()
    streams: tuple[StreamRule, ...] = ()
