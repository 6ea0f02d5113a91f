"""The records that have a say at waypoints, by kind, kept from snapshot to snapshot. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, TypeVar

from ambient.kube.backend_tls import BackendTLSPolicy
from ambient.kube.networking import DestinationRule
from ambient.kube.objects import (
    AuthorizationPolicy,
    Record,
    Records,
    ReferenceGrant,
    RequestAuthentication,
    Telemetry,
    VirtualService,
)
from ambient.kube.routing import AttachedRoute

R = TypeVar("R", bound=Record)

_TARGETED: Final = (AuthorizationPolicy, RequestAuthentication)
_KINDS: Final[tuple[type[Record], ...]] = (
    *_TARGETED,
    DestinationRule,
    AttachedRoute,
    VirtualService,
    ReferenceGrant,
    BackendTLSPolicy,
    Telemetry,
)


class Kept:
    """Policies are among them when they name targets."""

    def __init__(self) -> None:
        self._by_kind: dict[type[Record], dict[str, Record]] = {kind: {} for kind in _KINDS}

    def update(self, records: Records, keys: Iterable[str]) -> None:
        """What is under these keys now."""
        for key in keys:
            record = records.by_key.get(key)
            for kind, held in self._by_kind.items():
                if isinstance(record, kind) and (not isinstance(record, _TARGETED) or record.target_refs):
                    held[key] = record
                else:
                    held.pop(key, None)

    def of(self, kind: type[R]) -> list[R]:
        """All of a kind, in the order of their keys."""
        return [one for _, one in sorted(self._by_kind[kind].items()) if isinstance(one, kind)]

    def find(self, kind: type[R], key: str) -> R | None:
        found = self._by_kind[kind].get(key)
        return found if isinstance(found, kind) else None
