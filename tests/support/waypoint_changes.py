"""What changes of a waypoint and behind it while 500 requests a second pass it: each kind of change, again and again.

`./dev campaign waypoint_changes` makes many of each, tests/lab/test_waypoint_changes.py a few.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ambient.cli.demo.stage import PYTHON
from ambient.kube.objects import Pod
from tests.support.lab import LabUnderTest, lab_under_test, pod_yaml, until
from tests.support.waypoint_lab import SCENE, SERVER, apply, gateway_yaml, ready
from tests.support.waypoint_versions import VERSIONS, route_yaml, rule_yaml, to, virtual_yaml

RATE = 500
LOAD = r"""
import collections, http.client, json, sys, threading, time
rate, host, clients, stop = int(sys.argv[1]), sys.argv[2], 8, threading.Event()
seen, lock, begin = collections.Counter(), threading.Lock(), time.monotonic()
def client(first):
    link, number = http.client.HTTPConnection(host, timeout=60), first
    while not stop.is_set():
        time.sleep(max(0, begin + number / rate - time.monotonic()))
        number += clients
        try:
            link.request("GET", "/steady")
            answer = link.getresponse()
            answer.read()
            what = str(answer.status)
        except (OSError, http.client.HTTPException) as error:
            what = f"{type(error).__name__}: {error}"
            link.close()
        with lock:
            seen[what] += 1
threads = [threading.Thread(target=client, args=(first,)) for first in range(clients)]
for one in threads: one.start()
print("begun", flush=True)
sys.stdin.readline()
stop.set()
for one in threads: one.join()
print(json.dumps({"seconds": time.monotonic() - begin, "seen": seen}))
"""
"""Its arguments: requests a second, and where to. Ends with its first line of input and tells what was seen."""
_GOES_ON = """
import signal, threading, os
signal.signal(signal.SIGTERM, lambda *_: threading.Timer(8, os._exit, (0,)).start())
"""
"""As an application has to that loses no request when it is told to end: others may not have heard of it yet."""


@dataclass(frozen=True)
class Held:
    """One kind of change, so many of them, under load. `failed`: what was no 200, with its count."""

    change: str
    times: int
    requests: int
    seconds: float
    failed: dict[str, int]


@contextmanager
def changing_lab(certificates: str) -> Iterator[LabUnderTest]:
    """`certificates`: how long those of waypoints and ztunnels are good for."""
    with lab_under_test("chng") as lab:
        env = {f"{part}:SECRET_TTL": certificates for part in ("waypoint", "ztunnel")}
        lab.up(SCENE + VERSIONS + rule_yaml() + gateway_yaml(), mesh=True, env=env)
        ready(lab, resources=6)
        yield lab


def under_load(lab: LabUnderTest, name: str, times: int, change: Callable[[LabUnderTest, int], None]) -> Held:
    """`change(lab, number)` so many times."""
    with lab.start("shop/client", PYTHON, "-u", "-c", LOAD, str(RATE), "web.shop") as load, loaded(load) as told:
        for number in range(times):
            change(lab, number)
    failed = {what: count for what, count in told.seen.items() if what != "200"}
    return Held(name, times, sum(told.seen.values()), round(told.seconds, 1), failed)


@dataclass(slots=True)
class Told:
    """What the load came to: status or error -> how often."""

    seconds: float = 0.0
    seen: dict[str, int] = field(default_factory=dict)


@contextmanager
def loaded(load: subprocess.Popen[str]) -> Iterator[Told]:
    """The body runs under `load`, a process of LOAD; afterwards is known what it has seen. AssertionError when one of
    its clients fell over something that it does not count."""
    assert load.stdout is not None
    assert load.stdout.readline() == "begun\n", load.communicate()
    told = Told()
    yield told
    said, trouble = load.communicate("\n", timeout=200)
    assert (load.returncode, trouble) == (0, ""), trouble
    last: dict[str, Any] = json.loads(said)
    told.seconds, told.seen = last["seconds"], last["seen"]


def backends(*weights: tuple[str, int]) -> list[dict[str, Any]]:
    return [{"name": name, "port": 80, "weight": weight} for name, weight in weights]


def http(*rules: dict[str, Any]) -> str:
    return route_yaml("HTTPRoute", *rules)


def route(lab: LabUnderTest, number: int) -> None:
    """A route that changes its backend, its matches and its kind, and goes."""
    other = [{"path": {"value": "/other"}}]
    apply(lab, http({"backendRefs": backends(("web-v1", 1))}))
    apply(lab, http({"matches": other, "backendRefs": backends(("web-v1", 1))}, {"backendRefs": backends(("web", 1))}))
    lab.delete(http())
    apply(lab, virtual_yaml(http=[{"route": [to("v1", 50), to("v2", 50)]}]))
    lab.delete(virtual_yaml(http=[{"route": [to()]}]))
    ready(lab)


def canary(lab: LabUnderTest, number: int) -> None:
    """The next share of a canary that takes over."""
    share = (0, 10, 50, 90, 100)[number % 5]
    apply(lab, http({"backendRefs": backends(("web-v1", 100 - share), ("web-v2", share))}))


def certificate(lab: LabUnderTest, number: int) -> None:
    """A new certificate of the waypoint."""
    before = _issued(lab)
    until("the waypoint has a new certificate", lambda: _issued(lab) > before, 120)


def _issued(lab: LabUnderTest) -> int:
    return sum(line.count("certificate for ") for line in lab.must("logs", "shop/waypoint").splitlines())


def endpoint(lab: LabUnderTest, number: int) -> None:
    """An endpoint that comes, and the one that came before it goes."""
    lab.apply(_passing(number))
    lab.wait_ready(f"shop/passing-{number}")
    if number:
        lab.delete(_passing(number - 1))


def _passing(number: int) -> str:
    probe = {"tcpSocket": {"port": 8080}, "periodSeconds": 1}
    command = [PYTHON, "-u", "-c", _GOES_ON + SERVER]
    labels = {"app": "web"}
    return pod_yaml(
        f"shop/passing-{number}", command, node="n2", account="web", labels=labels, readiness=probe, grace=30
    )


def rollout(lab: LabUnderTest, number: int) -> None:
    """Another pod of the waypoint, and the one before it is told to end."""
    old, new = _proxy(number), _proxy(number + 1)
    raw = lab.lab.stored(f"Pod/shop/{old}")
    assert raw is not None
    metadata = {key: raw["metadata"][key] for key in ("namespace", "labels", "annotations")}
    lab.apply(json.dumps({**raw, "metadata": {**metadata, "name": new}}))
    lab.wait_ready(f"shop/{new}")
    lab.delete(json.dumps({**raw, "metadata": {**metadata, "name": old}}))
    until("the one before is gone", lambda: lab.lab.records().find(Pod, "shop", old) is None)


def _proxy(number: int) -> str:
    return f"waypoint-{number}" if number else "waypoint"


CHANGES: dict[str, Callable[[LabUnderTest, int], None]] = {
    "route change": route,
    "canary step": canary,
    "certificate rotation": certificate,
    "endpoint churn": endpoint,
    "waypoint rollout": rollout,
}
"""The rollout last: what stands for the Gateway has another name after it."""
