"""Which log lines are written: a lowest level, and other ones per target, in the syntax of Istio's ztunnel. Pure.

`info`, `access=off,proxy=debug`, `ztunnel::proxy=trace`: clauses joined by commas. A target is known by how it begins;
the longest clause that fits a target decides, and one without a target decides for the rest.
"""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from ambient.errors import InvalidInput

LEVELS: Final = ("trace", "debug", "info", "warn", "error", "off")
RANKS: Final = MappingProxyType({level: rank for rank, level in enumerate(LEVELS)})
"""The index of each level in LEVELS."""
_OFF: Final = LEVELS.index("off")
_BY_NUMBER: Final = MappingProxyType({str(number): level for number, level in enumerate(reversed(LEVELS))})
"""Behind a target a level may be a number as well, and in capitals."""
_CRATE: Final = "ztunnel::"
"""What Istio's ztunnel has before the names of its modules, and leaves out when it writes a line."""


@dataclass(frozen=True, slots=True)
class LogFilter:
    """`clauses`: (target, index of the lowest level in LEVELS), in the order they count; target "" is for the rest."""

    clauses: tuple[tuple[str, int], ...] = (("", LEVELS.index("info")),)

    def __str__(self) -> str:
        """As Istio's ztunnel shows it: longer targets first, the rest last."""
        return ",".join(f"{target}={LEVELS[least]}" if target else LEVELS[least] for target, least in self.clauses)

    def threshold(self, scope: str) -> int:
        """The index in LEVELS from which on lines of this scope are written."""
        for target, least in self.clauses:
            if scope.startswith(target) or (_CRATE + scope).startswith(target):
                return least
        return _OFF

    @property
    def lowest(self) -> int:
        """The index in LEVELS below which nothing at all is written."""
        return min((least for _, least in self.clauses), default=_OFF)

    def and_then(self, later: LogFilter) -> LogFilter:
        """Both, where they disagree the later one."""
        return _ordered({**dict(self.clauses), **dict(later.clauses)})


def parse_filter(text: str) -> LogFilter:
    """Read `level` and `target=level` clauses; raises InvalidInput naming the clause that makes no sense."""
    clauses: dict[str, int] = {}
    for clause in text.split(","):
        target, equals, level = clause.strip().rpartition("=")
        if equals:
            level = _BY_NUMBER.get(level, level.lower())
        if level not in LEVELS or (equals and not target.strip()):
            raise InvalidInput("unusable log level", repr(clause), f"expected [target=]{'|'.join(reversed(LEVELS))}")
        clauses[target.strip()] = LEVELS.index(level)
    return _ordered(clauses)


def _ordered(clauses: dict[str, int]) -> LogFilter:
    return LogFilter(tuple(sorted(clauses.items(), key=lambda clause: (len(clause[0]), clause[0]), reverse=True)))
