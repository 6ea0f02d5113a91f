"""What two ztunnels of one node say to each other when one takes over from the other (ztunnel.director.handover)."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What discovery has told the leaving ztunnel is on the node's disk: said unasked, once, to whoever comes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeOver:
    """The coming ztunnel could serve: give it everything. `network`: inode of its network namespace.

    Answered by Certificate and PodListeners messages, as workers exchange them with a director, then AllGiven.
    """

    network: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AllGiven:
    """No more certificates and pods follow."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TakenOver:
    """The coming ztunnel is ready and serves these pods with the sockets it was given."""

    uids: tuple[str, ...]


BetweenZtunnels = Written | TakeOver | AllGiven | TakenOver
