"""May this caller have a certificate for this identity? Pure.

A node gets identities only of pods that run on it: a node that was taken over can act as its own pods, no others. Any
other pod (a waypoint's, a gateway's) gets its own.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from ambient.ca.token import Caller
from ambient.errors import Refused
from ambient.model.identity import Identity


@dataclass(frozen=True, slots=True)
class Tenancy:
    """A service account that has at least one pod, neither finished nor failed, on a node."""

    node: str
    namespace: str
    service_account: str


class NotEntitled(Refused):
    """`rule`: which rule stood against it, as one word for metrics."""

    def __init__(self, wanted: Identity, rule: str, why: str) -> None:
        super().__init__("identity", str(wanted), why)
        self.rule = rule


def entitle(
    caller: Caller,
    wanted: Identity,
    *,
    tenancies: Collection[Tenancy],
    trust_domain: str,
    node_accounts: Collection[str],
) -> None:
    """Return when `caller` may have `wanted`, else raise NotEntitled with the rule that stands against it.

    `node_accounts`: "namespace/account" of components that may ask for their node's pods.
    """
    own = (caller.namespace, caller.service_account) == (wanted.namespace, wanted.service_account)
    if caller.account not in node_accounts and not own:
        raise NotEntitled(wanted, "account", f"{caller.account} may not ask for certificates of others")
    if wanted.trust_domain != trust_domain:
        raise NotEntitled(wanted, "trust_domain", f"this authority speaks for trust domain {trust_domain!r} only")
    if Tenancy(caller.node, wanted.namespace, wanted.service_account) not in tenancies:
        raise NotEntitled(wanted, "node", f"no pod of this account runs on node {caller.node}")
