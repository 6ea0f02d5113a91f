"""Which flows somebody wants to see: terms as typed on a command line, turned into one predicate. Pure.

Terms are ANDed: `key=value`, `key!=value`. Values of one key may be a comma list (any of them). Keys:
namespace (either side), pod (either side, "ns/name" or a name), from, to ("ns/name", a namespace with "ns/", an
address or "ip:port"), event, direction, node, principal (either side, with or without spiffe://), service, port (of the
destination), reason, policy, flags, security, protocol (tcp, udp, icmp, ...).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Final

from ambient.errors import InvalidInput
from ambient.flows.record import Event, Flow

Predicate = Callable[[Flow], bool]

_SCHEME: Final = "spiffe://"


def _pods(namespace: str, pod: str) -> frozenset[str]:
    return frozenset({pod, f"{namespace}/{pod}"}) if pod else frozenset()


def _host(endpoint: str) -> str:
    return endpoint.rpartition(":")[0].strip("[]")


def _side(namespace: str, pod: str, endpoint: str) -> frozenset[str]:
    named = {f"{namespace}/"} if namespace else set()
    return frozenset({endpoint, _host(endpoint), *named, *_pods(namespace, pod)})


def _principals(*uris: str) -> frozenset[str]:
    return frozenset(form for uri in uris if uri for form in (uri, uri.removeprefix(_SCHEME), _SCHEME + uri))


_VALUES: Final[Mapping[str, Callable[[Flow], frozenset[str]]]] = MappingProxyType(
    {
        "namespace": lambda f: frozenset({f.source_namespace, f.destination_namespace}),
        "pod": lambda f: _pods(f.source_namespace, f.source_pod) | _pods(f.destination_namespace, f.destination_pod),
        "from": lambda f: _side(f.source_namespace, f.source_pod, f.source),
        "to": lambda f: _side(f.destination_namespace, f.destination_pod, f.destination) | {f.service},
        "event": lambda f: frozenset({f.event.value}),
        "direction": lambda f: frozenset({f.direction}),
        "node": lambda f: frozenset({f.node}),
        "principal": lambda f: _principals(f.source_principal, f.destination_principal),
        "service": lambda f: frozenset({f.service, f.service.partition(".")[0]}),
        "port": lambda f: frozenset({f.destination.rpartition(":")[2]}),
        "reason": lambda f: frozenset({f.reason}),
        "policy": lambda f: frozenset({f.policy, f.policy.rpartition("/")[2]}),
        "flags": lambda f: frozenset({f.flags}),
        "security": lambda f: frozenset({f.security}),
        "protocol": lambda f: frozenset({f.protocol or "tcp"}),
    }
)


def parse_term(term: str) -> Predicate:
    """Read one term; raises InvalidInput that names the keys there are."""
    key, separator, value = term.partition("=")
    wanted_in = not key.endswith("!")
    key = key.removesuffix("!")
    if not separator or key not in _VALUES:
        raise InvalidInput("not a flow filter", repr(term), f"expected KEY=VALUE with KEY one of {', '.join(_VALUES)}")
    choices = frozenset(value.split(","))
    if "" in choices:
        raise InvalidInput("not a flow filter", repr(term), "a value is empty")
    if key == "event" and not choices <= frozenset(Event):
        raise InvalidInput("not a flow filter", repr(term), f"events are {', '.join(Event)}")
    values = _VALUES[key]

    def matches(flow: Flow) -> bool:
        return bool(values(flow) & choices) is wanted_in

    return matches


def parse_query(terms: Iterable[str]) -> Predicate:
    """All terms together; no term selects everything."""
    predicates = [parse_term(term) for term in terms]

    def matches(flow: Flow) -> bool:
        return all(predicate(flow) for predicate in predicates)

    return matches
