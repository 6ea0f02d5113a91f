"""What a refusal in the kernel costs: connect() to what policy denies, and ztunnel's CPU under a flood of denied SYNs.

    connect   mesh/client to a denied port of mesh/near, beside bare/client to a port of bare/near where nobody listens;
              and both to a port that is open, with a table of policy to be asked on the way
    flood     opening packets from bare/client to the denied port of mesh/near, beside as many to one of bare/near

They take turns, in one lab. The flood is compared with one that is nobody's business: on a busy machine a process that
only wakes up now and then costs more than on an idle one, whoever sends.
"""

from __future__ import annotations

import errno
import json
import os
import socket
import struct
from dataclasses import dataclass
from time import monotonic, perf_counter_ns, sleep
from typing import Final

from ambient.netns import entered
from bench.process import cpu_ns
from bench.stats import Ratio, middle_of, paired_ratio
from bench.world import BARE, HTTP, MESH, World

MOST_US: Final = 100.0
"""The budget of one refused connect(), median."""
MOST_MORE_US: Final = 10.0
"""The budget of what capture adds to a connect(), medians."""
SYNS: Final = 20_000
"""Of the flood, in a second; a sender on a busy machine may fall short by a twentieth."""
_LEAST_SYNS: Final = SYNS * 0.95
MOST_CPU: Final = 0.01
"""The budget of what the flood adds to ztunnel's CPU: "unchanged" is within a hundredth of a core."""
_DENIED: Final = 7
_CONNECTS: Final = 200
_BURST: Final = 100
_POLICY: Final = {
    "apiVersion": "security.istio.io/v1",
    "kind": "AuthorizationPolicy",
    "metadata": {"name": "denied", "namespace": MESH},
    "spec": {"action": "DENY", "rules": [{"to": [{"operation": {"ports": [str(_DENIED)]}}]}]},
}


@dataclass(frozen=True, slots=True)
class Refuse:
    """Microseconds of a connect(): refused by policy and at a closed port without a mesh; successful, captured and not
    captured. Both nodes' ztunnels' share of a core beside a flood without a mesh and under one that policy denies; how
    many SYNs a second that was."""

    denied_us: float
    closed_us: float
    captured_us: float
    direct_us: float
    ratio: Ratio
    cpu_beside: float
    cpu_flooded: float
    syns: float

    @property
    def quick(self) -> bool:
        return self.denied_us < MOST_US

    @property
    def light(self) -> bool:
        return self.captured_us - self.direct_us < MOST_MORE_US

    @property
    def unchanged(self) -> bool:
        return self.cpu_flooded - self.cpu_beside < MOST_CPU and self.syns >= _LEAST_SYNS


def refuse(world: World, rounds: int, seconds: float) -> Refuse:
    """Measure in turn; which comes first changes from round to round."""
    world.stage.apply(json.dumps(_POLICY))
    times: dict[str, list[float]] = {MESH: [], BARE: []}
    opened: dict[str, list[float]] = {MESH: [], BARE: []}
    shares: dict[str, list[float]] = {MESH: [], BARE: []}
    rates = []
    orders = [(MESH, BARE) if number % 2 else (BARE, MESH) for number in range(rounds)]
    for namespace in (namespace for order in orders for namespace in order):
        before, begun = cpu_ns(world.ztunnel_pids()), monotonic()
        sent = _flood(world, f"{namespace}/near", seconds)
        lasted = monotonic() - begun
        shares[namespace].append((cpu_ns(world.ztunnel_pids()) - before) / 1e9 / lasted)
        if namespace == MESH:
            rates.append(sent / lasted)
    # After the floods: ztunnel works on what these open for some time.
    for namespace in (namespace for order in orders for namespace in order):
        times[namespace].append(_connect_us(world, namespace, _DENIED, errno.ECONNREFUSED))
        opened[namespace].append(_connect_us(world, namespace, HTTP, 0))
    return Refuse(
        denied_us=middle_of(times[MESH]),
        closed_us=middle_of(times[BARE]),
        captured_us=middle_of(opened[MESH]),
        direct_us=middle_of(opened[BARE]),
        ratio=paired_ratio(times[MESH], times[BARE]),
        cpu_beside=middle_of(shares[BARE]),
        cpu_flooded=middle_of(shares[MESH]),
        syns=middle_of(rates),
    )


def _connect_us(world: World, namespace: str, port: int, wanted: int) -> float:
    """The median of some hundred connect() that must all end with this error (0: none)."""
    target = (world.address(f"{namespace}/near"), port)
    taken = []
    netns = os.open(world.netns(f"{namespace}/client"), os.O_RDONLY | os.O_CLOEXEC)
    try:
        with entered(netns):
            for _ in range(_CONNECTS):
                with socket.socket() as client:
                    begun = perf_counter_ns()
                    error = client.connect_ex(target)
                    taken.append((perf_counter_ns() - begun) / 1000)
                if error != wanted:
                    raise ConnectionError(f"connect() from {namespace}/client to {target}: {os.strerror(error)}")
    finally:
        os.close(netns)
    return middle_of(taken)


def _flood(world: World, pod: str, seconds: float) -> int:
    """Send opening packets at the rate to a pod; gives how many there were."""
    source, target = world.address(f"{BARE}/client"), world.address(pod)
    segments = [_syn(source, target, port) for port in range(20_000, 20_000 + _BURST)]
    netns = os.open(world.netns(f"{BARE}/client"), os.O_RDONLY | os.O_CLOEXEC)
    try:
        with entered(netns):
            raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
            raw.connect((target, 0))
    finally:
        os.close(netns)
    sent, begun = 0, monotonic()
    with raw:
        while (now := monotonic() - begun) < seconds:
            if sent >= now * SYNS * 1.1:
                sleep(0.0005)
                continue
            for segment in segments:
                raw.send(segment)
            sent += _BURST
    return sent


def _syn(source: str, target: str, port: int) -> bytes:
    header = struct.pack("!HHIIBBHHH", port, _DENIED, 1, 0, 5 << 4, 2, 64_240, 0, 0)
    pseudo = socket.inet_aton(source) + socket.inet_aton(target) + struct.pack("!BBH", 0, 6, len(header))
    total = sum(struct.unpack(f"!{(len(pseudo) + len(header)) // 2}H", pseudo + header))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return header[:16] + struct.pack("!H", ~total & 0xFFFF) + header[18:]


def lines(found: Refuse) -> list[str]:
    """Tables of Markdown."""
    shares = f"{found.cpu_beside:.4f} | {found.cpu_flooded:.4f}"
    return [
        "",
        "| connect(), median us | refused by policy | closed port, no mesh | ratio (95 %) | budget |",
        "|---" * 5 + "|",
        f"| same node | {found.denied_us:.0f} | {found.closed_us:.0f} | {found.ratio} | {_said(found.quick)} |",
        "",
        "| connect() that succeeds, median us | captured | no mesh | | budget |",
        "|---" * 5 + "|",
        f"| same node | {found.captured_us:.0f} | {found.direct_us:.0f} | | {_said(found.light)} |",
        "",
        "| ztunnels' CPU, share of a core | flood without a mesh | flood that policy denies | SYN/s | budget |",
        "|---" * 5 + "|",
        f"| both nodes | {shares} | {found.syns:.0f} | {_said(found.unchanged)} |",
    ]


def _said(held: bool) -> str:
    return "held" if held else "**missed**"
