"""How far every client is: the pages /sync (for `lab apply`) and /debug/syncz (in istiod's shape). Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from ambient.control.discovery import Client


def sync_page(
    observed: int,
    writers: Mapping[str, int],
    clients: Mapping[str, Client],
    waypoints: Mapping[str, Mapping[str, object]],
) -> dict[str, Any]:
    """`observed`: objects revision acted upon; `writers`: status changes of each writer acted upon.

    Per client: `acked` revision, `settled` (has and acknowledged everything there is now), `nack` when it refuses.
    """
    page: dict[str, Any] = {"observed": observed, "writers": dict(writers), "clients": {}, "waypoints": {**waypoints}}
    for name, client in sorted(clients.items()):
        entry: dict[str, Any] = {"acked": client.stream.acked, "settled": client.stream.settled}
        if nacks := client.stream.nacks:
            entry["nack"] = "; ".join(f"{resource}: {why}" for resource, why in sorted(nacks.items()))
        page["clients"][name] = entry
    return page


def syncz_page(cluster: str, clients: Mapping[str, Client]) -> list[dict[str, Any]]:
    """What istiod's page of this name says, per client."""
    return [
        {
            "cluster_id": cluster,
            "proxy": name,
            "proxy_type": client.caller.service_account,
            "peer": client.peer,
            "connected": datetime.fromtimestamp(client.opened_unix, UTC).isoformat(timespec="seconds"),
            "resources": {
                type_url: {"sent": nonce, "acked": client.stream.last_acked(type_url)}
                for type_url, nonce in sorted(client.sent.items())
            },
        }
        for name, client in sorted(clients.items())
    ]
