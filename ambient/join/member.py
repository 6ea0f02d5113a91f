"""What a machine knows of its membership, on disk: enough to go on after a restart without another ticket.

The file holds the session's secret and is its owner's only.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from ambient.ca.ticket import Ticket, session_text
from ambient.errors import InvalidInput
from ambient.lab.settings import write_atomically

FILE: Final = "member.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """`address` is the workload's, `probe` its group's as written; `node` is the name of this machine in the mesh."""

    control: str
    root: str
    namespace: str
    entry: str
    node: str
    session: str
    service_account: str
    address: str
    probe: Mapping[str, Any]
    cluster: str
    trust_domain: str
    cluster_domain: str
    network: str
    beat_s: float

    @classmethod
    def of(cls, ticket: Ticket, address: str, answer: Mapping[str, Any]) -> Member:
        """From the control plane's answer to a Join. Raises InvalidInput."""
        try:
            return cls(
                control=ticket.control,
                root=ticket.root,
                namespace=str(answer["namespace"]),
                entry=str(answer["entry"]),
                node=str(answer["node"]),
                session=str(answer["session"]),
                service_account=str(answer["serviceAccount"]),
                address=address,
                probe=dict(answer["probe"]),
                cluster=str(answer["cluster"]),
                trust_domain=str(answer["trustDomain"]),
                cluster_domain=str(answer["clusterDomain"]),
                network=str(answer["network"]),
                beat_s=float(answer["beatSeconds"]),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise InvalidInput("answer to the join", ticket.control, f"{type(error).__name__}: {error}") from None

    def token(self, role: str) -> str:
        """The bearer token of one of this machine's processes."""
        return session_text(role, self.namespace, self.entry, self.session)

    def save(self, state: Path) -> None:
        state.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(state / FILE, json.dumps(asdict(self), indent=1), 0o600)


def load(state: Path) -> Member | None:
    """The membership of an earlier run, None when there is none. Raises InvalidInput."""
    try:
        text = (state / FILE).read_text()
    except FileNotFoundError:
        return None
    try:
        return Member(**json.loads(text))
    except (ValueError, TypeError) as error:
        raise InvalidInput("membership", str(state / FILE), str(error)) from None


def forget(state: Path) -> None:
    (state / FILE).unlink(missing_ok=True)
