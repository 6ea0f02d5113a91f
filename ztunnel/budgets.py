"""What one pod may take of its node, and where that is set. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ambient.settings import integer, size
from ztunnel.tuning import Reader

PER_WORKER: Final = 100
"""New connections a second for every worker: a part of what it can do that leaves room for others."""
KINDS: Final = 6
"""What is counted of each pod in the node's ledger: see ztunnel.proxy.budget."""
_MOST: Final = 1 << 40


@dataclass(frozen=True, slots=True, kw_only=True)
class Budgets:
    """Of one pod, all workers together; 0: as much as it likes.

    `connections_per_second`: to and from it, held to only while other pods are at work. `open_connections`: to and
    from it, and as many tunnels to it, in which there may be none. `handshakes`: of such tunnels, at the same time.
    `waiting`: octets of memory for what its peers do not take.
    """

    connections_per_second: float = 0.0
    open_connections: int = 0
    handshakes: int = 0
    waiting: int = 0


def read_budgets(reader: Reader, workers: int) -> Budgets:
    """The settings of the environment. Raises InvalidInput naming the variable."""
    count = integer(0, _MOST)
    return Budgets(
        connections_per_second=reader.parsed("AMBIENT_POD_CONNECTIONS_PER_SECOND", PER_WORKER * workers, count),
        open_connections=reader.parsed("AMBIENT_POD_OPEN_CONNECTIONS", 20_000, count),
        handshakes=reader.parsed("AMBIENT_POD_HANDSHAKES", 128, count),
        waiting=reader.parsed("AMBIENT_POD_WAITING_BYTES", 64 << 20, _octets),
    )


def _octets(raw: str) -> int:
    return 0 if raw == "0" else size(raw)
