"""Authorization policies in the shape of istio.security.Authorization (what ztunnels receive).

rules are ORed; clauses of a rule are ANDed (none: the rule matches everything); matches of a clause are ORed
(none: true); fields of a match are ANDed (a match with every list empty never matches); a positive list is
ORed and true when empty; a `not_` list must have no member that matches.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Final

from ambient.model.address import IpNetwork
from ambient.model.networks import MANY, Networks

_BLOCKS: Final = ("source_ips", "not_source_ips", "destination_ips", "not_destination_ips")


class PolicyScope(IntEnum):
    GLOBAL = 0
    NAMESPACE = 1
    WORKLOAD_SELECTOR = 2


class Action(IntEnum):
    ALLOW = 0
    DENY = 1


class StringMatchKind(IntEnum):
    EXACT = 1
    PREFIX = 2
    SUFFIX = 3
    PRESENCE = 4


@dataclass(frozen=True, slots=True)
class StringMatch:
    kind: StringMatchKind
    value: str = ""


@dataclass(frozen=True, slots=True)
class ServiceAccountMatch:
    namespace: str
    service_account: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    namespaces: tuple[StringMatch, ...] = ()
    not_namespaces: tuple[StringMatch, ...] = ()
    principals: tuple[StringMatch, ...] = ()
    not_principals: tuple[StringMatch, ...] = ()
    service_accounts: tuple[ServiceAccountMatch, ...] = ()
    not_service_accounts: tuple[ServiceAccountMatch, ...] = ()
    source_ips: tuple[IpNetwork, ...] = ()
    not_source_ips: tuple[IpNetwork, ...] = ()
    destination_ips: tuple[IpNetwork, ...] = ()
    not_destination_ips: tuple[IpNetwork, ...] = ()
    destination_ports: tuple[int, ...] = ()
    not_destination_ports: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        for name in _BLOCKS:
            blocks = getattr(self, name)
            if len(blocks) > MANY and not isinstance(blocks, Networks):  # which may have its table already
                object.__setattr__(self, name, Networks(blocks))


class Datagram(StrEnum):
    """What has no connections and can be judged by policy, at the pod that it is for."""

    UDP = "udp"
    ICMP = "icmp"


Clause = tuple[Match, ...]
Rule = tuple[Clause, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Authorization:
    """One policy; `key` ("namespace/name") is its xDS name and what `Workload.authorization_policies` lists.

    `numbers`: where each rule stands in the resource, from 1; () where no rule of it was left out. `datagrams`: what it
    is about besides TCP.
    """

    name: str
    namespace: str
    scope: PolicyScope
    action: Action
    rules: tuple[Rule, ...] = ()
    dry_run: bool = False
    numbers: tuple[int, ...] = ()
    datagrams: frozenset[Datagram] = frozenset()

    def number_of(self, at: int) -> int:
        """Of the rule at `rules[at]` in the resource, from 1: what people are told."""
        return self.numbers[at] if self.numbers else at + 1

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"
