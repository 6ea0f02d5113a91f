"""Waiting until every node has acknowledged a revision of the objects, and saying who is late if not."""

from __future__ import annotations

import http.client
import json
import os
import socket
import time
from collections.abc import Iterable
from typing import Any

from ambient.errors import MeshError, Unavailable
from ambient.kube.objects import Node, Pod, Record, Records
from ambient.lab.lab import Lab
from ambient.lab.names import NETNS_DIR
from ambient.model.address import CONTROL_HTTP_PORT
from ambient.netns import entered

_POLL_S = 0.03
_HTTP_TIMEOUT_S = 2.0


def control_get(lab: Lab, path: str) -> Any:
    """JSON from the lab's control plane, asked from inside its namespace; raises Unavailable."""
    host = str(lab.settings.plan.control.v4)
    connection = http.client.HTTPConnection(host, CONTROL_HTTP_PORT, timeout=_HTTP_TIMEOUT_S)
    try:
        netns_fd = os.open(NETNS_DIR / lab.names.control, os.O_RDONLY | os.O_CLOEXEC)
        try:
            with entered(netns_fd):
                connection.sock = socket.create_connection((host, CONTROL_HTTP_PORT), _HTTP_TIMEOUT_S)
        finally:
            os.close(netns_fd)
        connection.request("GET", path)
        response = connection.getresponse()
        if response.status != 200:
            raise Unavailable("control plane", path, f"HTTP status {response.status}")
        return json.loads(response.read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise Unavailable("control plane", path, str(error)) from None
    finally:
        connection.close()


def late(lab: Lab, revision: int) -> list[str]:
    """Who has not yet acted on this revision, with the reason where there is one; [] when all have."""
    records = lab.records()
    parts = []
    for node in records.of(Node):
        for writer in ("kubelet", "agent") if lab.settings.mesh else ("kubelet",):
            state = records.writers.get(f"{writer}-{node.name}")
            if state is None or state.observed < revision:
                parts.append(f"{node.name}/{writer}" + (_waiting(records, node.name) if writer == "kubelet" else ""))
    if parts or not lab.settings.mesh:
        return parts
    return _late_clients(lab, records, revision)


def _waiting(records: Records, node: str) -> str:
    reasons = []
    for pod in records.of(Pod):
        if pod.node_name == node and pod.phase == "Pending" and (ready := pod.condition("Ready")) and ready.message:
            reasons.append(f"pod {pod.namespace}/{pod.name} {ready.message}")
    return f" ({'; '.join(reasons)})" if reasons else ""


def _late_clients(lab: Lab, records: Records, revision: int) -> list[str]:
    try:
        sync = control_get(lab, "/sync")
    except MeshError as error:
        return [f"control ({error})"]
    writers = sync.get("writers", {})
    behind = [name for name, state in records.writers.items() if writers.get(name, 0) < state.status]
    if sync.get("observed", -1) < revision or behind:
        return ["control" + (f" (has not read {', '.join(behind)})" if behind else "")]
    clients = sync.get("clients", {})
    parts = [
        f"waypoint {name}"
        for name, waypoint in sync.get("waypoints", {}).items()
        if waypoint["proxies"] and not (waypoint["settled"] and waypoint["acked"] >= revision)
    ]
    for node in records.of(Node):
        for name in ("ztunnel", "agent"):
            client = clients.get(f"{node.name}/{name}", {})
            if client.get("acked", -1) < revision or not client.get("settled", True):
                nack = f" (refuses {client['nack']})" if client.get("nack") else ""
                parts.append(f"{node.name}/{name}{nack}")
    return parts


def wait_acknowledged(lab: Lab, timeout_s: float) -> None:
    """Until everybody has acted on the objects as they are now; raises Unavailable naming who is late."""
    revision, deadline = lab.records().revision, time.monotonic() + timeout_s
    while parts := late(lab, revision):
        if time.monotonic() > deadline:
            raise Unavailable(f"not acknowledged within {timeout_s:g} s", f"revision {revision}", ", ".join(parts))
        time.sleep(_POLL_S)


def wait_gone(lab: Lab, left: Iterable[Record], timeout_s: float) -> None:
    """Until these pods are gone; raises Unavailable naming those that are not."""
    waiting = {record.key: record.uid for record in left if isinstance(record, Pod)}
    deadline = time.monotonic() + timeout_s
    while waiting:
        records = lab.records()
        waiting = {key: uid for key, uid in waiting.items() if key in records.by_key and records.by_key[key].uid == uid}
        if waiting and time.monotonic() > deadline:
            raise Unavailable(f"not gone within {timeout_s:g} s", ", ".join(waiting))
        if waiting:
            time.sleep(_POLL_S)
