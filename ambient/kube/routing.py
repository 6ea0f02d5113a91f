"""Values of the Gateway API's HTTPRoute, as written by people: what is matched, what is done, and where it goes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Final

from ambient.kube.records import Record

CONTROLLER: Final = "istio.io/mesh-controller"
"""Who speaks for the mesh in the status of a route."""


@dataclass(frozen=True, slots=True)
class PathMatch:
    """`kind` is Exact, PathPrefix or RegularExpression (then the whole path has to match)."""

    kind: str = "PathPrefix"
    value: str = "/"


@dataclass(frozen=True, slots=True)
class TextMatch:
    """A header or query parameter that has to be there with this value."""

    name: str
    value: str
    regex: bool = False


@dataclass(frozen=True, slots=True)
class RouteMatch:
    """All parts have to hold. `method` "": any."""

    path: PathMatch = PathMatch()
    headers: tuple[TextMatch, ...] = ()
    query: tuple[TextMatch, ...] = ()
    method: str = ""


@dataclass(frozen=True, slots=True)
class BackendRef:
    """`group` and `kind` as written; "" and Service is what we send to. `namespace` "": the route's own."""

    name: str
    port: int = 0
    weight: int = 1
    namespace: str = ""
    group: str = ""
    kind: str = "Service"


@dataclass(frozen=True, slots=True)
class HeaderEdit:
    """`set` and `add` are (name, value)."""

    set: tuple[tuple[str, str], ...] = ()
    add: tuple[tuple[str, str], ...] = ()
    remove: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PathEdit:
    """`kind` is ReplaceFullPath or ReplacePrefixMatch."""

    kind: str
    value: str


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
class RouteRule:
    """A request that one of `matches` fits is redirected, or goes to one of `backends`. Timeouts are milliseconds, 0:
    none, None: not given."""

    matches: tuple[RouteMatch, ...] = (RouteMatch(),)
    backends: tuple[BackendRef, ...] = ()
    request: HeaderEdit = HeaderEdit()
    response: HeaderEdit = HeaderEdit()
    redirect: Redirect | None = None
    rewrite: Rewrite | None = None
    mirrors: tuple[Mirror, ...] = ()
    timeout_ms: int | None = None
    backend_timeout_ms: int | None = None


@dataclass(frozen=True, slots=True)
class ParentRef:
    """`port` 0: all of the parent's. `namespace` "": the route's own."""

    group: str
    kind: str
    name: str
    namespace: str = ""
    port: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class HTTPRoute(Record):
    kind: ClassVar[str] = "HTTPRoute"
    parents: tuple[ParentRef, ...] = ()
    rules: tuple[RouteRule, ...] = field(default=(RouteRule(),))
