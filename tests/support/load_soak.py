"""A long mixed load at a modest pace, while pods come and go and certificates live for a minute: nothing fails, nothing
grows, and all is given back.

    with many_pods("soak", PODS, SHORT_LIVED) as mesh:
        scene = soak(mesh, minutes=30)
"""

from __future__ import annotations

import threading
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass
from time import monotonic
from typing import Final

from prometheus_client.parser import text_string_to_metric_families

from ambient.cli.reach import LabReach
from tests.support.journey import BYTES, LINES, Journey
from tests.support.lab import until
from tests.support.load import Scene
from tests.support.load_ledger import Ledger, at_rest, ledger, leftovers, watched
from tests.support.load_pods import NODES, come_and_go
from tests.support.survival import ATTEMPTS, TALK, TRY_S, Source

PODS: Final = 9
SHORT_LIVED: Final = {"ztunnel:SECRET_TTL": "60s"}
STATS_PORT: Final = 15020
SAMPLE_S: Final = 15.0
GROWTH_KB: Final = 6_144
"""What a part of a node may grow between the second quarter of the time and the last one: noise, not a slope."""

BULK: Final = r"""
import itertools, json, os, socket, struct, sys, threading, time
every, patience, size, port, *hosts = sys.argv[1:]
def whole(host, text):
    with socket.create_connection((host, int(port)), float(patience)) as s:
        s.settimeout(float(patience))
        back = 0
        def send():
            s.sendall(text)
            s.shutdown(socket.SHUT_WR)
        sender = threading.Thread(target=send)
        sender.start()
        while part := s.recv(1 << 16):
            back += len(part)
        sender.join()
        if back != 2 * len(text):
            raise OSError(f"{back} octets came back for {len(text)}")
def broken_off(host, text):
    # Reset in the middle: nothing of it may stay anywhere.
    with socket.create_connection((host, int(port)), float(patience)) as s:
        s.sendall(text[: len(text) // 3])
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
for number, host in enumerate(itertools.cycle(hosts)):
    began, why = time.monotonic(), ""
    try:
        (broken_off if number % 4 == 3 else whole)(host, os.urandom(int(size)))
    except OSError as error:
        why = str(error) or type(error).__name__
    print(json.dumps(dict(began=began, ended=time.monotonic(), to=host, why=why)), flush=True)
    time.sleep(float(every))
"""
"""Bytes out and twice as many back, counted; every fourth time a reset in the middle."""


@dataclass(frozen=True, slots=True)
class Sample:
    """At `at` seconds: memory and descriptors by part of a node, open connections."""

    at: float
    memory_kb: Counter[str]
    descriptors: Counter[str]
    streams: int


class Mixture:
    """What goes on all the time: from the first pod of each node to all the others, both families."""

    def __init__(self, mesh: Journey, stack: ExitStack, hosts: list[str], every_s: float) -> None:
        clients = [f"many/p{n}" for n in range(len(NODES))]
        self.attempts = [Source(mesh, pod, ATTEMPTS, every_s, TRY_S, "m", LINES, *hosts) for pod in clients]
        self.bulk = [Source(mesh, pod, BULK, 20 * every_s, 30.0, 300_000, BYTES, *hosts) for pod in clients]
        self.talks = [
            Source(mesh, pod, TALK, 0.5, TRY_S, "m", LINES, host) for pod, host in zip(clients, hosts, strict=False)
        ]
        for source in (*self.attempts, *self.bulk, *self.talks):
            stack.callback(source.close)
        until("everything flows", lambda: all(source.events for source in (*self.attempts, *self.bulk, *self.talks)))

    def close(self) -> None:
        for source in (*self.attempts, *self.bulk, *self.talks):
            source.close()

    def done(self) -> int:
        return sum(len(source.events) for source in self.attempts)

    def transfers(self) -> int:
        return sum(len(source.events) for source in self.bulk)

    def figures(self) -> dict[str, object]:
        tried = [event for source in self.attempts for event in source.events]
        took = sorted(event["ended"] - event["began"] for event in tried)
        return {
            "connections": len(tried),
            "failed": sum(bool(event["why"]) for event in tried),
            "p50 ms": round(1000 * took[len(took) // 2], 1),
            "p99 ms": round(1000 * took[len(took) * 99 // 100], 1),
            "transfers": self.transfers(),
            "words of endless conversations": sum(len(talk.events) for talk in self.talks),
        }

    def broken(self) -> list[str]:
        failed = Counter(event["why"] for source in (*self.attempts, *self.bulk) for event in source.events)
        ended = [event["over"] for talk in self.talks for event in talk.events if "over" in event]
        found = [f"{count} connections failed: {why}" for why, count in failed.items() if why]
        return found + [f"a conversation ended: {why}" for why in ended]


def soak(mesh: Journey, minutes: float, *, every_s: float = 0.1, at_once: int = 3) -> Scene:
    """So long, with `at_once` pods that come, talk and go again and again."""
    scene = Scene(f"{minutes:g} minutes, {PODS} pods on {len(NODES)} nodes, certificates of a minute")
    hosts = [mesh.host(f"many/p{n}", 4 if n % 2 else 6) for n in range(len(NODES), PODS)]
    samples: list[Sample] = []
    with ExitStack() as stack:
        watch = stack.enter_context(watched(mesh.lab))
        come_and_go(mesh, 1, at_once, scene, hosts)
        _warm(mesh, stack, hosts)
        before = at_rest(mesh)
        issued = _metric(mesh, "ambient_certificate_requests_total", result="issued")
        mixture = Mixture(mesh, stack, hosts, every_s)
        began = monotonic()
        turns = 0
        while monotonic() < began + 60 * minutes:
            come_and_go(mesh, 1, at_once, scene, hosts)
            turns += 1
            if not samples or monotonic() - began - samples[-1].at >= SAMPLE_S:
                samples.append(_sample(ledger(mesh), monotonic() - began))
            threading.Event().wait(min(5.0, 2 * minutes))
        mixture.close()
        scene.broken += mixture.broken()
        scene.figures |= {"pods that came and went": turns * at_once, **mixture.figures()}
    scene.figures["certificates issued"] = int(
        _metric(mesh, "ambient_certificate_requests_total", result="issued") - issued
    )
    scene.broken += _ailments(mesh) + _growth(samples)
    scene.broken += [f"afterwards: {what}" for what in leftovers(mesh, before, within_s=60)] + watch.broken()
    scene.figures |= _table(samples)
    scene.figures["before"] = before.text()
    scene.figures["after"] = ledger(mesh).text()
    return scene


def _warm(mesh: Journey, stack: ExitStack, hosts: list[str]) -> None:
    mixture = Mixture(mesh, stack, hosts, 0.05)
    pairs = len(NODES) * len(hosts)
    until("everybody was asked by every worker", lambda: mixture.done() >= 8 * pairs, 120)
    # What a worker keeps of its busiest turn it has from transfers.
    until("much was sent to everybody by every worker", lambda: mixture.transfers() >= 4 * pairs, 240)
    mixture.close()


def _sample(now: Ledger, at: float) -> Sample:
    memory: Counter[str] = Counter()
    for process in now.processes.values():
        memory[process.name] += process.pss_kb
    return Sample(at, memory, now.descriptors, now.streams)


def _growth(samples: list[Sample]) -> list[str]:
    """What has grown by more than noise between the second quarter and the last."""
    quarter = len(samples) // 4
    if not quarter:
        return []
    early, late = samples[quarter : 2 * quarter], samples[-quarter:]
    found = []
    for part in late[-1].memory_kb:
        was = sum(sample.memory_kb[part] for sample in early) // quarter
        now = sum(sample.memory_kb[part] for sample in late) // quarter
        if now > was + GROWTH_KB:
            found.append(f"{part} grew from {was} to {now} KB")
    return found


def _table(samples: list[Sample]) -> dict[str, object]:
    """Memory and descriptors of every part, at five moments."""
    moments = [samples[at * (len(samples) - 1) // 4] for at in range(5)] if len(samples) > 4 else samples
    figures: dict[str, object] = {"looked at after s": ", ".join(f"{sample.at:.0f}" for sample in moments)}
    for part in sorted(samples[-1].memory_kb) if samples else ():
        figures[f"{part} MB"] = ", ".join(f"{sample.memory_kb[part] / 1024:.1f}" for sample in moments)
        figures[f"{part} descriptors"] = ", ".join(str(sample.descriptors[part]) for sample in moments)
    return figures


def _ailments(mesh: Journey) -> list[str]:
    """What ztunnels say went wrong inside."""
    found = []
    for name, labels in (
        ("ambient_worker_handler_crashes_total", {}),
        ("ambient_director_messages_refused_total", {}),
        ("ambient_certificate_requests_total", {"result": "failed"}),
    ):
        count = _metric(mesh, name, **labels)
        if count:
            found.append(f"{name} is {count:.0f}")
    for node in NODES:
        lines = mesh.lab.names.log(node, "ztunnel").read_text(errors="replace").splitlines()
        wrong = [line for line in lines if "\terror\t" in line and "\taccess\t" not in line]
        found += [f"{node}: {line[:200]}" for line in wrong[:5]]
    return found


def _metric(mesh: Journey, name: str, **labels: str) -> float:
    """Summed over nodes."""
    reach = LabReach(mesh.lab.name)
    return sum(
        sample.value
        for node in NODES
        for family in text_string_to_metric_families(reach.ztunnel(node, "/metrics", STATS_PORT).text)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )
