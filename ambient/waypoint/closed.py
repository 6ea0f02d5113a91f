"""What stands in the place of what Envoy refuses: old rules do not live on, nothing passes. Pure.

Nothing in it is written by anybody, so there is nothing in it to refuse.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ambient.waypoint import tunnel
from ambient.waypoint.typed import Message

_BODY: Final = "the waypoint could not take what it was told of this service"


@dataclass(frozen=True, slots=True)
class Closed:
    """Ports of services, by name (`tunnel.inner`). `shut`: no connection and no request passes.
    `unlisted`: the table of CONNECTs leaves them out, whatever it would say of them. `gone`: names of clusters that are
    not there, with their endpoints: whatever leads to them is answered 503, from wherever it comes."""

    shut: frozenset[str] = frozenset()
    unlisted: frozenset[str] = frozenset()
    gone: frozenset[str] = frozenset()


NOTHING: Final = Closed()


def closed_table(name: str) -> Message:
    """The routes of a port that lets no request through: those of open connections are asked for it, too."""
    answer = {"status": 503, "body": {"inline_string": _BODY}}
    route = {"name": "closed", "match": {"prefix": "/"}, "direct_response": answer}
    host = {"name": "closed", "domains": ["*"], "routes": [route]}
    return {"name": name, "validate_clusters": False, "virtual_hosts": [host]}


def port_of(name: str) -> str:
    """The port that a resource of this name is for, "" when it is for none."""
    if (table := tunnel.table_of(name)) != name:
        return table
    parts = name.split("|")
    return tunnel.inner_of(parts[-1], parts[1]) if len(parts) > 2 else ""


def pool_of(name: str) -> str:
    """The port whose endpoints are those of a cluster of this name, "" when it is another one."""
    return "" if name.startswith("service|") else port_of(name)


def differing(table: Message, taken: Message) -> frozenset[str]:
    """What a table of CONNECTs says anew, against one that Envoy took."""
    before = {host["name"]: host for host in taken.get("virtual_hosts", ())}
    return frozenset(host["name"] for host in table["virtual_hosts"] if before.get(host["name"]) != host)
