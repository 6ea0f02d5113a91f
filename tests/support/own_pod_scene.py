"""A ztunnel that knows its own pod, in a network namespace of its own: run as `unshare --net python -m ...`.

Prints as JSON what a peer at its tunnel port got of its metrics, and on which addresses its ports listen.
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.support import ztunnel_bench as bench
from tests.support.hostile_peer import HELLO, PATIENCE_S, Wire, connect, data, headers
from tests.support.mint import Mint, client_context
from tests.support.waiting import eventually
from ztunnel.inpod.listeners import HBONE_PORT

OWN_IP = "10.99.0.1"
NAME = "z"
GET = b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
PORTS = (15001, 15006, 15008, 15053)


def listening() -> dict[str, list[str]]:
    """Local addresses of listening TCP sockets by port."""
    found: dict[str, list[str]] = {}
    rows = subprocess.run(["ss", "-Hltn"], check=True, capture_output=True, text=True).stdout
    for row in rows.splitlines():
        host, _, port = row.split()[3].rpartition(":")
        if int(port) in PORTS:
            found.setdefault(port, []).append(host)
    return found


def ask(place: bench.ZtunnelBench, account: str) -> dict[str, Any]:
    leaf = Mint.of(place.control.ca).leaf(f"spiffe://cluster.local/ns/shop/sa/{account}")
    with Wire(socket.create_connection((OWN_IP, HBONE_PORT), PATIENCE_S), client_context(leaf)) as wire:
        wire.send(HELLO, headers(1, connect(f"{OWN_IP}:{place.ztunnel.ports + 20}")), data(1, GET))
        heard = wire.listen(PATIENCE_S, enough=lambda heard: b"istio_build" in heard.data(1))
        return {"status": heard.status(1), "metrics": b"istio_build" in heard.data(1)}


async def scene() -> dict[str, Any]:
    named = {"POD_NAME": NAME, "POD_NAMESPACE": "shop", "SERVICE_ACCOUNT": NAME}
    with tempfile.TemporaryDirectory() as folder:
        async with bench.ztunnel_bench(Path(folder), "own", 77, **named) as place:
            pods = [(place.a.name, place.a.ip), (place.b.name, place.b.ip), (NAME, OWN_IP)]
            place.control.apply(bench.OBJECTS + "".join(bench.POD.format(name=name, ip=ip) for name, ip in pods))
            await place.served()
            await eventually(lambda: str(HBONE_PORT) in listening(), "for its own tunnel port")
            loop = asyncio.get_running_loop()
            return {**await loop.run_in_executor(None, ask, place, "a"), "listening": listening()}


def main() -> None:
    for command in ("ip link set lo up", f"ip addr add {OWN_IP}/32 dev lo"):
        subprocess.run(command.split(), check=True)
    sys.stdout.write(json.dumps(asyncio.run(scene())) + "\n")


if __name__ == "__main__":
    main()
