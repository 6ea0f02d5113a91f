"""A membership for tests of the machine's side."""

from __future__ import annotations

from typing import Any, Final

from ambient.ca.ticket import Ticket
from ambient.join.member import Member

TICKET: Final = Ticket("shop", "ledger", "0" * 16, "s" * 43, "192.0.2.1:15012", "root")
ANSWER: Final[dict[str, Any]] = {
    "namespace": "shop",
    "entry": "ledger-192-0-2-7",
    "node": "ledger-192-0-2-7.shop.joined.ambient.mesh",
    "session": "s" * 43,
    "serviceAccount": "ledger",
    "probe": {},
    "cluster": "Kubernetes",
    "trustDomain": "cluster.local",
    "clusterDomain": "cluster.local",
    "network": "",
    "beatSeconds": 5,
}


def member(**changes: Any) -> Member:
    return Member.of(TICKET, "192.0.2.7", {**ANSWER, **changes})
