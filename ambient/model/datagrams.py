"""Policy of what has no connections (UDP, ICMP queries): may such a packet reach this pod? The definition, and the rows
that a kernel looks up for it. Pure.

Only policies that name the protocol are asked, at the pod that the packet is for. Nobody judges after the kernel, so
what cannot be told refuses: of whom only an address is known an ALLOW that asks for an identity allows nothing, and a
DENY that asks for one refuses everybody. ICMP has port 0: rules that ask for ports do not hold for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from ambient.model.address import IpAddress
from ambient.model.boxes import Facts
from ambient.model.deny import Guarded, Judged, Row, Says, block_of
from ambient.model.identity import Identity
from ambient.model.matching import NO_FIELDS, match_matches, principal_of
from ambient.model.outcome import Allowed, Connection, Denied, Reason, Verdict
from ambient.model.policy import Action, Authorization, Clause, Datagram, Match

_NO_ALLOW_POLICY = Allowed(Reason.NO_ALLOW_POLICY)


@dataclass(frozen=True, slots=True)
class DatagramRows:
    """`unproven`: by the address of anybody; `proven`: of those whose identity is known, which go before."""

    unproven: tuple[Row[Says], ...] = ()
    proven: tuple[Row[Says], ...] = ()


def judge_datagram(policies: Iterable[Authorization], protocol: Datagram, packet: Connection) -> Verdict:
    """The verdict by trying every rule; `packet.peer` None: nobody knows more of the sender than its address."""
    asked = [policy for policy in policies if protocol in policy.datagrams and not policy.dry_run]
    for policy in asked:
        if policy.action is Action.DENY and _holds(policy, packet, certain=False):
            return Denied(Reason.DENIED_BY, policy.key)
    allows = [policy for policy in asked if policy.action is Action.ALLOW]
    if not allows:
        return _NO_ALLOW_POLICY
    for policy in allows:
        if _holds(policy, packet, certain=True):
            return Allowed(Reason.ALLOWED_BY, policy.key)
    return Denied(Reason.NO_ALLOW_MATCHED, allows[0].key)


def rows_of_datagrams(
    pod: Guarded, address: IpAddress, protocol: Datagram, proven: Mapping[IpAddress, Identity]
) -> DatagramRows:
    """Rows for what comes to `address` of the pod; `proven`: the pods of this node by their addresses."""
    asked = tuple(policy for policy in pod.policies if protocol in policy.datagrams and not policy.dry_run)
    if not asked:
        return DatagramRows()
    denies = [policy for policy in asked if policy.action is Action.DENY]
    allows = [policy for policy in asked if policy.action is Action.ALLOW]
    anybody = Judged(denies, Facts(address, unproven=True, certain=False), (0, 0), alone=True)
    anybody.join(Judged(allows, Facts(address, unproven=True), (0, 0), alone=True))
    found: list[Row[Says]] = []
    for peer, identity in proven.items():
        if peer.version == address.version:
            block = block_of(peer)
            its = Judged(asked, Facts(address, identity, peer), block, alone=True)
            found += (row._replace(block=block) for row in its.enforced())
    return DatagramRows(anybody.enforced(), tuple(found))


def _holds(policy: Authorization, packet: Connection, *, certain: bool) -> bool:
    return any(all(_clause_holds(clause, packet, certain) for clause in rule) for rule in policy.rules)


def _clause_holds(clause: Clause, packet: Connection, certain: bool) -> bool:
    return not clause or any(_match_holds(match, packet, certain) for match in clause)


def _match_holds(match: Match, packet: Connection, certain: bool) -> bool:
    if packet.peer is not None:
        return match_matches(match, packet, principal_of(packet))
    rest = replace(
        match,
        namespaces=(),
        not_namespaces=(),
        principals=(),
        not_principals=(),
        service_accounts=(),
        not_service_accounts=(),
    )
    if rest == match:
        return match_matches(match, packet, None)
    return not certain and (rest == NO_FIELDS or match_matches(rest, packet, None))
