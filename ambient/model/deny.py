"""What policy is known to refuse, as rows that a kernel can look up: for a pod address, by port and by peer address.

Made of the same policies that `decide` judges, for what is known on the node alone: plain text that comes to a pod,
whatever a tunnel from an address could ask for, and what one pod of the node may open to another. Rows refuse, they
never allow; where something cannot be told they refuse less. Pure.

Looking up (`judge` is the definition of what the programs do): the row of any port and the row of the very port, or
where no row names that port the row of the others; each the longest block that holds the peer. Their bits are added up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import IntFlag
from typing import Final, Generic, NamedTuple, TypeVar

from ambient.model.address import IpAddress, IpNetwork
from ambient.model.boxes import EVERY_PORT, EVERYTHING, Box, Facts, Ports, boxes_of, ports_named
from ambient.model.identity import Identity
from ambient.model.outcome import Denied, Reason
from ambient.model.policy import Action, Authorization, Match

OTHER_PORT: Final = 0x10000
ANY_PORT: Final = 0x10001
TUNNEL: Final = 0x10002
_ITS_WAYPOINT: Final = ""
"""Stands for the policy when a pod is to be reached through its waypoint only."""
_MOST_SPREAD: Final = 200_000
"""Boxes of all ports but some, times the ports that anybody names: beyond that such boxes are not told."""
_FOURTH: Final = 0xFFFF << 32
_LONGEST: Final = 128


class Bits(IntFlag):
    REFUSES = 1
    """A DENY matches."""
    ALLOWS = 2
    """An ALLOW matches, or may."""
    NEEDS_ALLOW = 4
    """There are ALLOWs, so one of them must match."""


@dataclass(frozen=True, slots=True)
class Says:
    """What an enforced row says; `denial` is what to tell of whom it refuses."""

    bits: Bits = Bits(0)
    denial: Denied | None = None


@dataclass(frozen=True, slots=True)
class Shades:
    """What a row of dry-run policies says: those that match, and (in rows of ANY_PORT, which say nothing else) the one
    to count when no ALLOW of any kind does."""

    denies: frozenset[str] = frozenset()
    allows: frozenset[str] = frozenset()
    unmatched: str = ""


Said = TypeVar("Said", Says, Shades)


class Row(NamedTuple, Generic[Said]):
    """`block`: the first address of the peer's block as a number of 128 bits (IPv4 in its mapped form), and how many
    of these bits count. `port`: a port, OTHER_PORT, ANY_PORT or TUNNEL."""

    port: int
    block: tuple[int, int]
    says: Said


@dataclass(frozen=True, slots=True)
class Guarded:
    """A pod and what guards it: its policies in the order of `decide`; who alone may come (`waypoints`), but for
    `open_ports`. `missing`: a policy that it names is not known, so that nothing can be told."""

    identity: Identity
    policies: tuple[Authorization, ...] = ()
    missing: bool = False
    waypoints: tuple[str, ...] = ()
    open_ports: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Rows:
    """Everything about one address of a pod in one direction."""

    enforced: tuple[Row[Says], ...] = ()
    shadow: tuple[Row[Shades], ...] = ()


NOTHING: Final = Rows()


def of_arriving(pod: Guarded, address: IpAddress) -> Rows:
    """Rows by the source of what comes to `address` of the pod: plain text, and whole tunnels."""
    if pod.missing:
        return NOTHING
    plain = Judged(pod.policies, Facts(address), (0, 0))
    if pod.waypoints:
        plain.add_deny(_ITS_WAYPOINT, Box(Ports(frozenset(pod.open_ports), others=True)))
    if not plain.says_anything:
        return NOTHING
    return Rows((*plain.enforced(), *_of_tunnels(pod, address)), plain.shadow())


def of_leaving(source: Identity, address: IpAddress, others: Mapping[IpAddress, Guarded]) -> Rows:
    """Rows by the destination of what a pod opens from `address` to `others`, which it reaches in a tunnel of its own
    identity. What is behind a waypoint is left out."""
    enforced: list[Row[Says]] = []
    shadow: list[Row[Shades]] = []
    alike: dict[int, Rows] = {}
    for destination, other in others.items():
        if other.missing or other.waypoints or destination.version != address.version:
            continue
        these = id(other.policies)
        rows = alike.get(these)
        if rows is None:
            judged = Judged(other.policies, Facts(destination, source, address), block_of(destination))
            rows = Rows(judged.enforced(), judged.shadow()) if judged.says_anything else NOTHING
            if not names_destinations(other.policies):
                alike[these] = rows
        block = block_of(destination)
        enforced += (row._replace(block=block) for row in rows.enforced)
        shadow += (row._replace(block=block) for row in rows.shadow)
    return Rows(tuple(enforced), tuple(shadow))


def names_destinations(policies: Iterable[Authorization]) -> bool:
    """Rules ask for the pod's own address, so that two pods of the same policies may differ."""
    return any(match.destination_ips or match.not_destination_ips for match in _matches(policies))


def names_sources(policies: Iterable[Authorization]) -> bool:
    """Rules ask for the peer's address."""
    return any(match.source_ips or match.not_source_ips for match in _matches(policies))


def _matches(policies: Iterable[Authorization]) -> Iterator[Match]:
    return (match for policy in policies for rule in policy.rules for clause in rule for match in clause)


def look_up(rows: Iterable[Row[Said]], port: int, peer: IpAddress) -> Said | None:
    """What the longest block of these rows says that holds the peer (slowly)."""
    number, _ = block_of(peer)
    best: Row[Said] | None = None
    for row in rows:
        first, length = row.block
        longer = best is None or length > best.block[1]
        if row.port == port and longer and first >> (_LONGEST - length) == number >> (_LONGEST - length):
            best = row
    return None if best is None else best.says


def judge(rows: Iterable[Row[Says]], port: int, peer: IpAddress) -> Says:
    """What the programs read out of the rows (slowly)."""
    listed = list(rows)
    any_port = look_up(listed, ANY_PORT, peer)
    if any_port is None:
        return Says()
    own = look_up(listed, port, peer) or look_up(listed, OTHER_PORT, peer) or Says()
    refuses_here = Bits.REFUSES in own.bits and Bits.REFUSES not in any_port.bits
    return Says(any_port.bits | own.bits, own.denial if refuses_here else any_port.denial)


def judge_tunnel(rows: Iterable[Row[Says]], peer: IpAddress) -> Says:
    return look_up(list(rows), TUNNEL, peer) or Says()


def refuses(says: Says) -> bool:
    if Bits.REFUSES in says.bits:
        return True
    return Bits.NEEDS_ALLOW in says.bits and Bits.ALLOWS not in says.bits


def block_of(block: IpAddress | IpNetwork) -> tuple[int, int]:
    """The key of a block or an address."""
    if not isinstance(block, IpAddress):
        number, length = int(block.network_address), block.prefixlen
        return (number, length) if block.version == 6 else (_FOURTH | number, 96 + length)
    return (int(block) if block.version == 6 else _FOURTH | int(block), _LONGEST)


def _of_tunnels(pod: Guarded, address: IpAddress) -> Iterator[Row[Says]]:
    """Rows of TUNNEL: the sources from which no identity may reach any port."""
    every = Judged(pod.policies, Facts(address, tunnel=True), (0, 0))
    some = Judged(pod.policies, Facts(address, tunnel=True, certain=False), (0, 0))

    def refusing(active: _Active) -> Says:
        if active.denies:
            return Says(Bits.REFUSES, _denial(active))
        return Says(Bits.REFUSES, some.unmatched) if some.unmatched is not None and not active.allows else Says()

    for row in _walk([*every.denies, *some.allows], (0, 0), refusing):
        if row.says.bits or row.block != (0, 0):
            yield row._replace(port=TUNNEL)


class _Claim(NamedTuple):
    """A box and whose it is."""

    action: Action
    policy: str
    box: Box


class _Active:
    """The policies whose boxes hold the block that a walk has come to, in the order in which it met them."""

    __slots__ = ("allows", "denies")

    def __init__(self) -> None:
        self.allows: dict[str, int] = {}
        self.denies: dict[str, int] = {}

    def change(self, claim: _Claim, by: int) -> None:
        table = self.denies if claim.action is Action.DENY else self.allows
        count = table.get(claim.policy, 0) + by
        if count:
            table[claim.policy] = count
        else:
            del table[claim.policy]


class Judged:
    """The policies of one pod under some facts, taken apart. `block`: that of all peers in question; `alone`: nobody
    judges after these rows, so that what cannot be told refuses."""

    def __init__(
        self, policies: Iterable[Authorization], facts: Facts, block: tuple[int, int], *, alone: bool = False
    ) -> None:
        self._block = block
        self._spared = Action.DENY if alone else Action.ALLOW
        self.denies: list[_Claim] = []
        self.allows: list[_Claim] = []
        self.unmatched: Denied | None = None
        """There are enforced ALLOWs: what to tell of whom none of them matches."""
        self._dry: list[_Claim] = []
        self._first_dry_allow = ""
        for policy in policies:
            self._take(policy, facts)

    def _take(self, policy: Authorization, facts: Facts) -> None:
        if policy.action is Action.ALLOW:
            if policy.dry_run:
                self._first_dry_allow = self._first_dry_allow or policy.key
            elif self.unmatched is None:
                self.unmatched = Denied(Reason.NO_ALLOW_MATCHED, policy.key)
        where = self._dry if policy.dry_run else self.denies if policy.action is Action.DENY else self.allows
        for rule in policy.rules:
            boxes = boxes_of(rule, facts)
            if boxes is None:  # not told: a DENY is ztunnel's to enforce, an ALLOW may match (`alone`: the reverse)
                boxes = (EVERYTHING,) if policy.action is self._spared else ()
            where += (_Claim(policy.action, policy.key, box) for box in boxes)

    def join(self, other: Judged) -> None:
        """Take in what others say, under other facts."""
        self.denies += other.denies
        self.allows += other.allows
        self.unmatched = self.unmatched or other.unmatched

    def add_deny(self, whose: str, box: Box) -> None:
        self.denies.append(_Claim(Action.DENY, whose, box))

    @property
    def says_anything(self) -> bool:
        return bool(self.denies or self.unmatched is not None or self._dry or self._first_dry_allow)

    def enforced(self) -> tuple[Row[Says], ...]:
        def says(active: _Active) -> Says:
            allows = Bits.ALLOWS if active.allows else Bits(0)
            return Says(Bits.REFUSES | allows, _denial(active)) if active.denies else Says(allows)

        rows = _by_port([*self.denies, *self.allows], self._block, says, Says(), spared=self._spared)
        if self.unmatched is None:
            return tuple(rows)
        return tuple(
            row._replace(says=Says(row.says.bits | Bits.NEEDS_ALLOW, row.says.denial or self.unmatched))
            if row.port == ANY_PORT
            else row
            for row in rows
        )

    def shadow(self) -> tuple[Row[Shades], ...]:
        if not self._dry and not self._first_dry_allow:
            return ()

        def shades(active: _Active) -> Shades:
            return Shades(frozenset(active.denies), frozenset(active.allows))

        return tuple(
            row._replace(says=Shades(row.says.denies, row.says.allows, self._first_dry_allow))
            if row.port == ANY_PORT
            else row
            for row in _by_port(self._dry, self._block, shades, Shades(), whole=True)
        )


def _denial(active: _Active) -> Denied:
    """What to tell of whom the first of these refuses."""
    policy = next(iter(active.denies))
    return Denied(Reason.NOT_ITS_WAYPOINT if policy == _ITS_WAYPOINT else Reason.DENIED_BY, policy)


def _by_port(
    claims: Sequence[_Claim],
    block: tuple[int, int],
    says: Callable[[_Active], Said],
    nothing: Said,
    *,
    whole: bool = False,
    spared: Action = Action.ALLOW,
) -> Iterator[Row[Said]]:
    """Rows of every port that matters. The row of ANY_PORT for all peers is always there: it says that we know.

    `whole`: the rows of a port, and of the others, tell everything; those of any port tell nothing.
    """
    named = ports_named(claim.box for claim in claims)
    spread = [claim for claim in claims if claim.box.ports.others and (whole or claim.box.ports.listed)]
    if len(spread) * len(named) > _MOST_SPREAD:
        if whole:
            return
        claims, spread = [told for claim in claims if (told := _told_coarsely(claim, spared)) is not None], []
        named = ports_named(claim.box for claim in claims)
    by_port: dict[int, list[_Claim]] = {ANY_PORT: []}
    if spread:
        by_port[OTHER_PORT] = spread
        by_port |= {port: [claim for claim in spread if port in claim.box.ports] for port in named}
    for claim in claims:
        ports = claim.box.ports
        if ports == EVERY_PORT and not whole:
            by_port[ANY_PORT].append(claim)
        elif not ports.others:
            for port in ports.listed:
                by_port.setdefault(port, []).append(claim)
    for port, its in by_port.items():
        for row in _walk(its, block, says):
            # An empty row of a port is there to say that the row of the others is not about it.
            if row.says != nothing or row.block != block or port == ANY_PORT or (spread and port != OTHER_PORT):
                yield row._replace(port=port)


def _told_coarsely(claim: _Claim, spared: Action) -> _Claim | None:
    """The claim without "all ports but": one of the spared kind of more, the other of nothing."""
    if not (claim.box.ports.others and claim.box.ports.listed):
        return claim
    if claim.action is not spared:
        return None
    return claim._replace(box=Box(EVERY_PORT, claim.box.within, claim.box.without))


def _walk(claims: Sequence[_Claim], root: tuple[int, int], says: Callable[[_Active], Said]) -> Iterator[Row[Said]]:
    """Every block of the claims where something else is said than in the block around it, and `root` (port 0).

    Blocks are met from the outside in, by their first address; what a block changed is undone when it is left.
    """
    changes: dict[tuple[int, int], list[tuple[int, int]]] = {root: []}
    for index, claim in enumerate(claims):
        for block in (root,) if claim.box.within is None else {block_of(one) for one in claim.box.within}:
            changes.setdefault(block, []).append((index, 1))
        for block in {block_of(one) for one in claim.box.without}:
            changes.setdefault(block, []).append((index, -1))
    inside, outside = [0] * len(claims), [0] * len(claims)
    active = _Active()
    open_blocks: list[tuple[int, list[tuple[int, int]], Said]] = []

    def change(index: int, which: int, by: int) -> None:
        before = inside[index] > 0 and not outside[index]
        (inside if which > 0 else outside)[index] += by
        after = inside[index] > 0 and not outside[index]
        if before != after:
            active.change(claims[index], 1 if after else -1)

    for block in sorted(changes):
        first, length = block
        while open_blocks and open_blocks[-1][0] < first:
            for index, which in reversed(open_blocks.pop()[1]):
                change(index, which, -1)
        for index, which in changes[block]:
            change(index, which, 1)
        said = says(active)
        if not open_blocks or said != open_blocks[-1][2]:
            yield Row(0, block, said)
        open_blocks.append((first | ((1 << (_LONGEST - length)) - 1), changes[block], said))
