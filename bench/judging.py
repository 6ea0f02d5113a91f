"""Judging one connection against few and many policies of the same kind: microseconds, and how many times as long.

Ten rules a policy. Of ten policies one refuses by address and port; what the others allow by is the kind.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from time import thread_time_ns
from types import MappingProxyType
from typing import Final

from ambient.model.decide import PolicyIndex
from ambient.model.identity import Identity
from ambient.model.outcome import Connection, Denied
from ambient.model.policy import Action, Authorization, Match, PolicyScope, StringMatch, StringMatchKind
from bench.stats import Ratio, middle_of, paired_ratio

FEW: Final = 10
MANY: Final = 10_000
RULES: Final = 10
MOST_TIMES: Final = 1.2
MOST_US: Final = 5.0
"""The budget: against MANY at most so many times as long as against FEW, and so many microseconds."""
_BATCH: Final = 4_000
_TURNS: Final = 5
"""Short turns, and many of them: what else runs on the machine then meets both sides alike."""
_HERE: Final = ip_address("10.1.2.4")
_PORT: Final = 8080


@dataclass(frozen=True, slots=True)
class Kind:
    """`rule(at)` is the match of the at-th rule, `source` and `peer` are those of a connection it allows."""

    rule: Callable[[int], Match]
    source: Callable[[int], str]
    peer: Callable[[int], Identity]


def _app(at: int) -> Identity:
    return Identity("cluster.local", f"team-{at % 500}", f"app-{at}")


def _one_source(at: int) -> str:
    return "10.1.2.3"


def _string(kind: StringMatchKind, value: str) -> tuple[StringMatch, ...]:
    return (StringMatch(kind, value),)


def _wildcard(at: int) -> Match:
    if at % 2:
        return Match(principals=_string(StringMatchKind.SUFFIX, f"/sa/app-{at}"), destination_ports=(_PORT,))
    return Match(principals=_string(StringMatchKind.PREFIX, f"cluster.local/ns/app-{at}/"), destination_ports=(_PORT,))


def _of_wildcard(at: int) -> Identity:
    return Identity("cluster.local", f"app-{at}", f"app-{at}")


def _block(at: int) -> Match:
    length = (24, 28, 30, 32)[at % 4]
    return Match(source_ips=(ip_network((_address(at), length), strict=False),), destination_ports=(_PORT,))


def _address(at: int) -> str:
    return str(ip_address("20.0.0.0") + at * 256)


KINDS: Final[Mapping[str, Kind]] = MappingProxyType(
    {
        "principals": Kind(
            lambda at: Match(principals=_string(StringMatchKind.EXACT, _app(at).principal), destination_ports=(_PORT,)),
            _one_source,
            _app,
        ),
        "wildcards": Kind(_wildcard, _one_source, _of_wildcard),
        "address blocks": Kind(_block, _address, _app),
    }
)


def policies(count: int, kind: str = "principals") -> list[Authorization]:
    """`count` policies of ten rules, no two of which are alike."""
    return [_policy(number, KINDS[kind]) for number in range(count)]


def _policy(number: int, kind: Kind) -> Authorization:
    deny = number % 10 == 0
    places = range(number * RULES, (number + 1) * RULES)
    return Authorization(
        name=f"p{number}",
        namespace="shop",
        scope=PolicyScope.WORKLOAD_SELECTOR,
        action=Action.DENY if deny else Action.ALLOW,
        rules=tuple((((_refused(at) if deny else kind.rule(at)),),) for at in places),
    )


def _refused(at: int) -> Match:
    network = ip_network(f"172.{16 + at // 65536 % 16}.{at // 256 % 256}.{at % 256}/32")
    return Match(source_ips=(network,), destination_ports=(1 + at % 60_000,))


def connections(count: int, kind: str = "principals") -> dict[str, Connection]:
    """One that the last policy allows, one that nothing allows, one without identity."""
    last = count * RULES - 1
    source = ip_address(KINDS[kind].source(last))
    stranger = ip_address("10.9.9.9")
    return {
        "allowed by the last": Connection(source, _HERE, _PORT, KINDS[kind].peer(last)),
        "allowed by none": Connection(stranger, _HERE, _PORT, Identity("cluster.local", "other", "stranger")),
        "without identity": Connection(stranger, _HERE, _PORT, None),
    }


@dataclass(frozen=True, slots=True)
class Judging:
    """Microseconds per judgement against FEW and MANY policies, and MANY over FEW."""

    kind: str
    connection: str
    few_us: float
    many_us: float
    ratio: Ratio

    @property
    def held(self) -> bool:
        """The budget is, with 95 % certainty."""
        return self.ratio.high <= MOST_TIMES and self.many_us <= MOST_US


def judging(rounds: int) -> list[Judging]:
    """Alternates between the two indexes, several times a round, for each kind of policies and of connection."""
    found = []
    for kind in KINDS:
        few, many = PolicyIndex(policies(FEW, kind)), PolicyIndex(policies(MANY, kind))
        of_many = connections(MANY, kind)
        for name, of_few in connections(FEW, kind).items():
            assert isinstance(few.judge(of_few), Denied) == isinstance(many.judge(of_many[name]), Denied)
            times: tuple[list[float], list[float]] = ([], [])
            for _ in range(rounds * _TURNS + 1):
                times[0].append(_time(few.judge, of_few))
                times[1].append(_time(many.judge, of_many[name]))
            few_us, many_us = times[0][1:], times[1][1:]
            ratio = paired_ratio(many_us, few_us)
            found.append(Judging(kind, name, middle_of(few_us), middle_of(many_us), ratio))
    return found


def _time(judge: Callable[[Connection], object], connection: Connection) -> float:
    begun = thread_time_ns()
    for _ in range(_BATCH):
        judge(connection)
    return (thread_time_ns() - begun) / _BATCH / 1000


def lines(verdicts: list[Judging]) -> list[str]:
    """A table of Markdown."""
    head = f"| policies allow by | connection | us, {FEW} | us, {MANY:,} | ratio (95 %) | budget |"
    rows = [
        f"| {one.kind} | {one.connection} | {one.few_us:.2f} | {one.many_us:.2f} | {one.ratio} |"
        f" {'held' if one.held else '**missed**'} |"
        for one in verdicts
    ]
    return ["", head, "|---" * 6 + "|", *rows]
