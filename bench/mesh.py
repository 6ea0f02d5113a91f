"""What it costs a director to know a mesh: memory, and time during which nothing else can run.

Each size in a process of its own, from one response as a control plane sends it, then saved and started from disk.
Workloads are shaped like those of Deployments of ten pods: strings of such a pod's lengths, one service each.
"""

from __future__ import annotations

import asyncio
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Final

from ambient.model.workload import Port, TunnelProtocol, Workload
from ambient.xds.channel import ServerSettings
from ambient.xds.codec import ADDRESS_TYPE, AUTHORIZATION_TYPE, encode
from ambient.xds.messages import DeltaResponse, encode_response, open_response, ztunnel_node
from ambient.xds.pace import WithoutCollection, between_others
from bench.process import memory
from ztunnel.director.discovery import Discovery
from ztunnel.director.snapshot import SnapshotFile

SIZES: Final = (10_000, 100_000)
_PODS_OF_A_SERVICE: Final = 10
_PODS_OF_A_NODE: Final = 100


@dataclass(frozen=True, slots=True)
class Known:
    """`each`: octets of PSS per workload. CPU seconds to take the first answer, to save it, to start from it.
    `block_ms`: the longest time of the event loop's thread between two turns of it, in milliseconds of CPU."""

    workloads: int
    each: float
    each_restored: float
    take_s: float
    save_s: float
    restore_s: float
    block_ms: float


def workload(number: int) -> Workload:
    """One pod of a mesh."""
    app = number // _PODS_OF_A_SERVICE
    namespace = f"team-{app % 200}"
    name = f"service-{app}-7d9c{app % 65536:04x}-{number % 60466176:05x}"
    return Workload(
        uid=f"Kubernetes//Pod/{namespace}/{name}",
        name=name,
        namespace=namespace,
        service_account=f"service-{app}",
        addresses=(ip_address(0x0A000000 + number),),
        tunnel_protocol=TunnelProtocol.HBONE,
        node=f"node-{number // _PODS_OF_A_NODE}",
        canonical_name=f"service-{app}",
        canonical_revision="v1",
        workload_name=f"service-{app}",
        services={f"{namespace}/service-{app}.{namespace}.svc.cluster.local": (Port(80, 8080),)},
    )


def known(sizes: tuple[int, ...] = SIZES) -> list[Known]:
    """Measure every size in its own process."""
    found = []
    for count in sizes:
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "response")
            with open(path, "wb") as file:
                resources = tuple(encode(workload(number)) for number in range(count))
                file.write(encode_response(DeltaResponse(type_url=ADDRESS_TYPE, nonce="1", resources=resources)))
            parts: dict[str, float] = {}
            for part in ("take", "restore"):
                command = [sys.executable, "-m", "bench.mesh", part, path, str(count)]
                parts |= json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
            blocks = parts.pop("block_take"), parts.pop("block_restore")
            found.append(Known(workloads=count, block_ms=max(blocks), **parts))
    return found


class _Turns:
    """The longest CPU time between two turns of the loop, while in use."""

    def __init__(self) -> None:
        self.longest_ms = 0.0

    async def during(self, work: Awaitable[object]) -> float:
        """CPU seconds of the work."""
        beside = asyncio.ensure_future(self._look())
        begun = time.process_time()
        await work
        spent = time.process_time() - begun
        beside.cancel()
        return spent

    async def _look(self) -> None:
        last = time.thread_time()
        while True:
            await asyncio.sleep(0)
            now = time.thread_time()
            self.longest_ms = max(self.longest_ms, (now - last) * 1000)
            last = now


def _discovery(folder: str) -> Discovery:
    return Discovery(
        ztunnel_node("node-7"),
        ServerSettings(target="nowhere:1", root="SYSTEM"),
        SnapshotFile(folder, "bench"),
        on_change=lambda _changes, _more: None,
        on_state=lambda _state: None,
        on_message=lambda _url, _size: None,
        on_save_failed=lambda: None,
    )


def _pss() -> int:
    found = memory(os.getpid())
    return found.pss * 1024 if found is not None else 0


async def _take(path: str, count: int) -> dict[str, float]:
    one = _discovery(os.path.dirname(path))
    turns = _Turns()
    gc.collect()
    before = _pss()

    def answer() -> DeltaResponse:
        with open(path, "rb") as file:
            return open_response(file.read())

    async def take() -> None:
        response = answer()
        with WithoutCollection():
            batch, _ = await between_others(one.core.take(response))
        del response
        waiting = one.apply(batch)
        if waiting is not None:
            await waiting

    take_s = await turns.during(take())
    one.core.receive(DeltaResponse(type_url=AUTHORIZATION_TYPE, nonce="1"))
    each = (_pss() - before) / count
    save_s = await turns.during(one.save())
    return {"each": each, "take_s": take_s, "save_s": save_s, "block_take": turns.longest_ms}


async def _restore(path: str, count: int) -> dict[str, float]:
    one = _discovery(os.path.dirname(path))
    turns = _Turns()
    gc.collect()
    before = _pss()
    restore_s = await turns.during(one.restore())
    return {"each_restored": (_pss() - before) / count, "restore_s": restore_s, "block_restore": turns.longest_ms}


def lines(sizes: Sequence[Known]) -> list[str]:
    """A table of Markdown, and what a workload costs in the largest mesh over what it costs in the smallest."""
    rows = [
        f"| {one.workloads:,} | {one.each:.0f} | {one.each_restored:.0f} | {one.take_s:.2f} | {one.save_s:.2f} |"
        f" {one.restore_s:.2f} | {one.block_ms:.1f} |"
        for one in sizes
    ]
    return [
        "",
        "| workloads known | octets each | started from disk | CPU s: first answer | save | start | longest step, ms |",
        "|---" * 7 + "|",
        *rows,
        "",
        f"octets each, {sizes[-1].workloads:,} over {sizes[0].workloads:,}: {sizes[-1].each / sizes[0].each:.2f}",
    ]


def main() -> None:
    """`take` or `restore`, the response's file and the number of workloads: that part in this process, as JSON."""
    part, path, count = sys.argv[1], sys.argv[2], int(sys.argv[3])
    found = asyncio.run((_take if part == "take" else _restore)(path, count))
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
