"""Which routes are on which listeners of a gateway, and for which host names, as the Gateway API has it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from ambient.kube.networking import Gateway, Listener
from ambient.kube.objects import Condition
from ambient.kube.routing import AttachedRoute, ParentRef, RequestRoute, StreamRoute
from ambient.model.names import wildcards
from ambient.waypoint.bootstrap import OWN_PORTS

GROUP: Final = "gateway.networking.k8s.io"
_REQUESTS: Final = ("HTTPRoute", "GRPCRoute")
SERVED: Final[Mapping[str, tuple[str, ...]]] = {"HTTP": _REQUESTS, "HTTPS": _REQUESTS, "TLS": ("TLSRoute",)}
"""Kinds of routes by the protocol of a listener."""
ANY: Final = "*"


@dataclass(frozen=True, slots=True)
class Attached:
    """A route on a listener, for the host names that both have (`ANY`: any)."""

    route: AttachedRoute
    hostnames: tuple[str, ...]


@dataclass(slots=True)
class Face:
    """A listener as it stands. `conflict` and `unserved` are (reason, message), ("", "") where all is well; `wrong`
    the kinds of routes that it cannot have. `attached` in no order."""

    listener: Listener
    unserved: tuple[str, str] = ("", "")
    conflict: tuple[str, str] = ("", "")
    wrong: tuple[str, ...] = ()
    kinds: tuple[str, ...] = ()
    attached: list[Attached] = field(default_factory=list)

    @property
    def usable(self) -> bool:
        return not (self.unserved[0] or self.conflict[0])


def faces(gateway: Gateway) -> list[Face]:
    """Its listeners, each with what is wrong with it."""
    return [_face(gateway, one) for one in gateway.listeners]


def _face(gateway: Gateway, listener: Listener) -> Face:
    served = SERVED.get(listener.protocol)
    if served is None:
        known = ", ".join(SERVED)
        return Face(listener, ("UnsupportedProtocol", f"{listener.protocol} is none of {known}"))
    wanted = listener.kinds
    kinds = served if wanted is None else tuple(kind for group, kind in wanted if (group, kind) in _named(served))
    wrong = () if wanted is None else tuple(kind for group, kind in wanted if (group, kind) not in _named(served))
    face = Face(listener, conflict=_conflict(gateway, listener), wrong=wrong, kinds=kinds)
    if listener.port in OWN_PORTS:
        face.unserved = ("PortUnavailable", f"port {listener.port} is the proxy's own")
    elif listener.protocol == "TLS" and listener.tls_mode != "Passthrough":
        face.unserved = ("UnsupportedProtocol", "TLS is carried unread (tls.mode Passthrough), or ended as HTTPS")
    elif listener.protocol == "HTTPS" and listener.tls_mode == "Passthrough":
        face.unserved = ("UnsupportedProtocol", "HTTPS is ended here: what is to be carried unread is TLS")
    return face


def _named(kinds: Iterable[str]) -> set[tuple[str, str]]:
    return {(GROUP, kind) for kind in kinds}


def _conflict(gateway: Gateway, listener: Listener) -> tuple[str, str]:
    """With another listener of its port: of two that exclude each other neither is served."""
    for other in gateway.listeners:
        if other is listener or other.port != listener.port or other.protocol not in SERVED:
            continue
        if (other.protocol == "HTTP") is not (listener.protocol == "HTTP"):
            why = f"listener {other.name} has {other.protocol} on port {listener.port}"
            return "ProtocolConflict", why
        if other.hostname == listener.hostname:
            return "HostnameConflict", f"listener {other.name} has the same port and host name"
    return "", ""


def covers(wide: str, hostname: str) -> bool:
    """Every name that `hostname` stands for is one that `wide` stands for."""
    return wide in (ANY, hostname) or (wide.startswith("*.") and hostname.endswith(wide[1:]))


def common(listener: str, hostnames: Sequence[str]) -> tuple[str, ...]:
    """The host names that a listener ("" any) and a route (() any) have in common."""
    own = listener or ANY
    found = []
    for one in hostnames or (ANY,):
        if covers(own, one):
            found.append(one)
        elif covers(one, own):
            found.append(own)
    return tuple(dict.fromkeys(found))


def covering(hostname: str) -> tuple[str, ...]:
    """Every name that `covers` it, the most exact first."""
    return tuple(dict.fromkeys((*wildcards(hostname), ANY)))


def holder(by_name: Mapping[str, Face], hostname: str) -> Face | None:
    """Of the listeners of a port, by their names, the one that requests for a host name belong to: the most exact that
    covers it."""
    return next((by_name[one] for one in covering(hostname) if one in by_name), None)


def exactness(hostname: str) -> tuple[bool, int]:
    """To sort by: a whole name before one with a part left open, the longer of two first."""
    return not hostname.startswith("*"), len(hostname)


def attach(
    route: AttachedRoute,
    gateway: Gateway,
    found: Sequence[Face],
    lets: Callable[[Gateway, Listener, str], bool],
) -> Iterator[tuple[ParentRef, Condition]]:
    """Put the route where it belongs, and say for each of its parents that is this Gateway whether it was accepted.

    `lets(gateway, listener, namespace)`: routes of a namespace may be attached.
    """
    for parent in dict.fromkeys(route.parents):
        if not is_parent(parent, route.namespace, gateway):
            continue
        meant = [
            one for one in found if parent.section in ("", one.listener.name) and parent.port in (0, one.listener.port)
        ]
        allowed = [one for one in meant if route.kind in one.kinds and lets(gateway, one.listener, route.namespace)]
        fitting = [(one, hosts) for one in allowed if (hosts := common(one.listener.hostname, names_of(route)))]
        for face, hosts in fitting:
            if not face.attached or face.attached[-1].route is not route:
                face.attached.append(Attached(route, hosts))
        yield parent, _accepted(parent, gateway, bool(meant), bool(allowed), bool(fitting))


def names_of(route: AttachedRoute) -> tuple[str, ...]:
    """The host names that a route is for, () for any."""
    if isinstance(route, StreamRoute):
        return route.streams[0].names if route.streams else ()
    return route.hostnames if isinstance(route, RequestRoute) else ()


def _accepted(parent: ParentRef, gateway: Gateway, meant: bool, allowed: bool, fitting: bool) -> Condition:
    title = f"Gateway {gateway.namespace}/{gateway.name}"
    if fitting:
        return Condition("Accepted", "True", "Accepted", f"Route was valid, attached to {title}")
    if not meant:
        which = f"{parent.section or 'that'}{f' on port {parent.port}' if parent.port else ''}"
        return Condition("Accepted", "False", "NoMatchingParent", f"{title} has no listener {which}")
    if not allowed:
        return Condition("Accepted", "False", "NotAllowedByListeners", f"no listener of {title} takes this route")
    return Condition("Accepted", "False", "NoMatchingListenerHostname", f"no listener of {title} has one of its hosts")


def is_parent(parent: ParentRef, namespace: str, gateway: Gateway) -> bool:
    where = (parent.group, parent.kind, parent.namespace or namespace, parent.name)
    return where == (GROUP, "Gateway", gateway.namespace, gateway.name)
