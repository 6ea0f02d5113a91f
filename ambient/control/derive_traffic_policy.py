"""DestinationRules: which one is in force for a service at a waypoint, and what it says of one port. Pure.

As Istio chooses: of the waypoint's namespace before the service's before the root namespace; of one namespace the rule
whose host is the more exact, of equal ones the oldest.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from ambient.control.derive_hosts import exactness, exported_to
from ambient.kube.networking import DestinationRule
from ambient.kube.networking import Subset as RuleSubset
from ambient.kube.traffic_values import TrafficPolicy
from ambient.model.workload import Service


class Rules:
    """All of a mesh's, to choose from. Rules with a workloadSelector are about clients: a waypoint has none of them."""

    def __init__(self, rules: Iterable[DestinationRule], root_namespace: str) -> None:
        self._root_namespace = root_namespace
        self._by_namespace: dict[str, list[DestinationRule]] = {}
        for rule in sorted(rules, key=lambda one: (one.created or "~", one.key)):
            if rule.selector is None:
                self._by_namespace.setdefault(rule.namespace, []).append(rule)

    def of(self, service: Service, home: str) -> DestinationRule | None:
        """The one that is in force at a proxy in namespace `home`, None where there is none."""
        for namespace in dict.fromkeys((home, service.namespace, self._root_namespace)):
            fitting = list(self._fitting(namespace, service, home))
            if fitting:
                return max(fitting, key=lambda one: one[0])[1]
        return None

    def _fitting(self, namespace: str, service: Service, home: str) -> Iterator[tuple[int, DestinationRule]]:
        for rule in self._by_namespace.get(namespace, ()):
            exact = exactness(rule.host, rule.namespace, service)
            if exact and exported_to(rule.export_to, rule.namespace, home):
                yield exact, rule


def policy_of(rule: DestinationRule | None, port: int, subset: RuleSubset | None = None) -> TrafficPolicy:
    """What a rule says of one port: a subset's word before the whole host's, a port's before the general one."""
    if rule is None:
        return TrafficPolicy()
    whole = _at(rule.traffic, port)
    return whole if subset is None else _over(whole, _at(subset.traffic, port))


def _at(policy: TrafficPolicy, port: int) -> TrafficPolicy:
    general = replace(policy, ports=())
    return next((_over(general, of_port) for number, of_port in policy.ports if number == port), general)


def _over(below: TrafficPolicy, above: TrafficPolicy) -> TrafficPolicy:
    return TrafficPolicy(
        above.balancer or below.balancer,
        above.pool or below.pool,
        above.outliers or below.outliers,
        above.tls or below.tls,
        above.retry_budget or below.retry_budget,
    )
