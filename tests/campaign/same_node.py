"""`./dev campaign same_node [--minutes N] [--seed S]`: the kernel path under churn, every octet checked, while a policy
comes and goes. Recorded in docs/reports/same-node.json; the same for seconds is in tests/lab/test_same_node.py.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import socket
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any, Final

from ambient.datapath.maps import Maps
from tests.support.agent_lab import AgentLab, eventually, settled_world, whole_mesh
from tests.support.agent_objects import OTHER, POD, WILLING, deny_port
from tests.support.campaign_record import ROOT, where
from tests.support.direct_churn import Churn, Dial, churn, dialled, serve, talk

REPORT: Final = ROOT / "docs" / "reports" / "same-node.json"
_CUT_EVERY_S: Final = 20.0
_CUT_FOR_S: Final = 2.0
_SETTLE_S: Final = 5.0
"""For whoever is last to hear of it, after connections open again."""
_AGAIN_S: Final = 0.2
_THREADS: Final = 4
_PATIENCE_S: Final = 60.0
_GROWN_MIB: Final = 16.0


def main(arguments: list[str]) -> int:
    """0 when no octet was lost, the agent has not grown and nothing is left behind."""
    parser = argparse.ArgumentParser(prog="dev campaign same_node")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    with settled_world(f"amb-smc-{os.getpid()}") as world, whole_mesh(world, WILLING, POD, OTHER) as lab:
        record = where() | _run(lab, options.minutes, options.seed)
    REPORT.parent.mkdir(parents=True, exist_ok=True)
    REPORT.write_text(json.dumps(record, indent=1) + "\n")
    print(json.dumps(record, indent=1))
    return 1 if record["wrong"] or record["ways_left"] or record["agent_grown_mib"] > _GROWN_MIB else 0


def _run(lab: AgentLab, minutes: float, seed: int) -> dict[str, Any]:
    world = lab.world
    with world.socket(world.other, socket.AF_INET) as listener:
        listener.bind((str(world.other.ip(4)), 0))
        listener.listen(64)
        serve(listener)
        target = listener.getsockname()

        dial = partial(dialled, world, target, _PATIENCE_S)

        def granted() -> bool:
            dial().close()
            return bool(_shown(lab)["kernel_path"]["grants"])

        eventually(granted, "connections take the kernel path", _PATIENCE_S)
        cutting, over = threading.Event(), threading.Event()
        cutter = threading.Thread(target=_come_and_go, args=(lab, target[1], dial, cutting, over))
        before, began, memory = _directs(lab), time.monotonic(), _memory_mib(lab)
        cutter.start()
        try:
            found: Churn = churn(dial, minutes * 60, seed, _THREADS, cutting.is_set)
        finally:
            over.set()
            cutter.join()
        directs, took, grown = _directs(lab) - before, time.monotonic() - began, _memory_mib(lab) - memory
        with Maps.open(lab.bpffs) as tables:
            eventually(lambda: not tables.direct.ways(), "every way is taken out", _PATIENCE_S)
            left = len(tables.direct.ways())
    return {
        "seconds": round(took, 1),
        "seed": seed,
        "connections": dict(found.done),
        "on_the_kernel_path": directs,
        "octets_each_way": found.octets,
        "cut_by_policy": found.cut,
        "wrong": found.wrong[:20],
        "ways_left": left,
        "agent_grown_mib": round(grown, 1),
        "clear_text": _shown(lab)["counters"]["clear_text"],
    }


def _come_and_go(lab: AgentLab, port: int, dial: Dial, cutting: threading.Event, over: threading.Event) -> None:
    """A policy that denies the port, for a while, again and again. `cutting` is set from before it comes until what it
    did is over."""
    while not over.wait(_CUT_EVERY_S):
        cutting.set()
        lab.put(deny_port(port))
        while not over.is_set() and not _shown(lab)["policy_rows"]:
            over.wait(_AGAIN_S)
        over.wait(_CUT_FOR_S)
        lab.delete("AuthorizationPolicy", "no")
        while not over.is_set() and (_shown(lab)["policy_rows"] or not _opens(dial)):
            over.wait(_AGAIN_S)
        over.wait(_SETTLE_S)
        cutting.clear()


def _opens(dial: Dial) -> bool:
    try:
        return talk(dial, "empty", random.Random()) == 0
    except OSError:
        return False


def _shown(lab: AgentLab) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(lab.http("GET", "/pods")[1])
    return found


def _directs(lab: AgentLab) -> int:
    return int(_shown(lab)["counters"]["captured"]["direct_out"])


def _memory_mib(lab: AgentLab) -> float:
    status = Path(f"/proc/{lab.processes[-1].popen.pid}/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) / 1024


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
