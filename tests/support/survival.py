"""Traffic that goes on while something dies, and its verdict: gaps, failures, forbidden answers, bytes in clear.

    with Load(mesh) as load:                 # allowed streams, open conversations, refused clients, two captures
        load.flows()                         # until everything that may flow does
        struck = monotonic(); ...            # the fault
        load.settles(struck)                 # until new connections succeed again
    verdict = load.verdict(struck)           # after the captures ended

Clients run inside pods; their clock is the machine's monotonic clock, as ours.
"""

from __future__ import annotations

import json
import secrets
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, Final

from ambient.cli.demo.capture import Capture
from ambient.cli.demo.stage import PYTHON
from ambient.lab.cgroup import pids, place
from tests.support.journey import BATCH, FAR, LINES, NEAR, OUTSIDE, WEB, Journey, policy, strict
from tests.support.lab import PATIENCE_S, until

RULES: Final = strict() + "".join(
    policy(f"only-web-{app}", "ALLOW", [{"from": [{"source": {"principals": ["cluster.local/ns/shop/sa/web"]}}]}], app)
    for app in ("far", "near")
)
"""STRICT, and only `web` is let in."""
EVERY_S: Final = 0.05
IN_FLIGHT_S: Final = 0.15
"""An attempt that began this short before or after the blow was under way when it fell."""
TRY_S: Final = 8.0
"""The patience of one attempt: longer than three repeated SYNs."""

ATTEMPTS: Final = r"""
import itertools, json, os, socket, sys, threading, time
every, patience, marker, port, *hosts = sys.argv[1:]
said, room = threading.Lock(), threading.Semaphore(100)
def attempt(number, host):
    began, heard, why = time.monotonic(), 0, ""
    try:
        with socket.create_connection((host, int(port)), float(patience)) as s:
            s.settimeout(float(patience))
            lines = s.makefile("rb")
            heard = len(lines.readline())
            if not heard:
                raise OSError("ended before a word")
            text = f"{marker}-{number}-{os.urandom(1500).hex()}\n".encode()
            s.sendall(text)
            back = lines.readline()
            if back != text:
                why = "cut short" if text.startswith(back) else "wrong bytes"
    except OSError as error:
        why = str(error) or type(error).__name__
    with said:
        print(json.dumps(dict(began=began, ended=time.monotonic(), to=host, heard=heard, why=why)), flush=True)
    room.release()
for number, host in enumerate(itertools.cycle(hosts)):
    room.acquire()
    threading.Thread(target=attempt, args=(number, host), daemon=True).start()
    time.sleep(float(every))
"""

TALK: Final = r"""
import itertools, json, os, socket, sys, time
every, patience, marker, port, host = sys.argv[1:]
def say(**what):
    print(json.dumps(dict(what, at=time.monotonic())), flush=True)
for talk in itertools.count():
    why = "ended"
    try:
        with socket.create_connection((host, int(port)), float(patience)) as s:
            s.settimeout(30)
            lines = s.makefile("rb")
            if lines.readline():
                for number in itertools.count():
                    text = f"{marker}-talk-{number}-{os.urandom(1500).hex()}\n".encode()
                    s.sendall(text)
                    back = lines.readline()
                    if back != text:
                        why = "ended" if text.startswith(back) else "wrong bytes"
                        break
                    say(talk=talk, echo=number)
                    time.sleep(float(every))
    except OSError as error:
        why = str(error) or type(error).__name__
    say(talk=talk, over=why)
    time.sleep(float(every))
"""


class Source:
    """One client in a pod; `events` grows while it runs."""

    def __init__(self, mesh: Journey, pod: str, program: str, *words: object) -> None:
        self.pod = pod
        self.events: list[dict[str, Any]] = []
        self._process = mesh.lab.start(pod, PYTHON, "-u", "-c", program, *map(str, words))
        assert self._process.stdout is not None
        self._reader = threading.Thread(target=self._read, args=(self._process.stdout,), daemon=True)
        self._reader.start()

    def _read(self, stream: IO[str]) -> None:
        for line in stream:
            self.events.append(json.loads(line))

    def close(self) -> None:
        self._process.kill()
        self._reader.join()  # before communicate() closes the pipe under it
        self._process.communicate()

    def after(self, moment: float, key: str = "began") -> list[dict[str, Any]]:
        return [event for event in list(self.events) if event.get(key, -1.0) >= moment]


@dataclass(slots=True)
class Verdict:
    """What became of the traffic since the blow. Times in seconds; `held`: how each open conversation fared."""

    tried: int = 0
    failed: int = 0
    failed_later: int = 0
    worst_gap_s: float = 0.0
    recovery_s: float = 0.0
    held: dict[str, str] = field(default_factory=dict)
    violations: list[str] = field(default_factory=list)
    reasons: dict[str, int] = field(default_factory=dict)

    def __str__(self) -> str:
        held = ", ".join(f"{name} {how or 'went on'}" for name, how in self.held.items())
        return (
            f"{self.tried} tried, {self.failed} failed {self.reasons or ''}, worst gap {self.worst_gap_s:.2f} s, "
            f"back after {self.recovery_s:.2f} s; {held}; {'; '.join(self.violations) or 'no violation'}"
        )


class Load:
    """Allowed: web -> far (both families, across nodes) and near (same node). Refused: batch by policy, outside by
    STRICT. Bytes in clear are looked for on the `wires` of these nodes."""

    def __init__(self, mesh: Journey, wires: Iterable[str] = ("n1", "n2")) -> None:
        self._mesh = mesh
        self._captures = {node: Capture(mesh.lab.name, node) for node in wires}
        self._stack = ExitStack()
        self.marker = f"secret{secrets.token_hex(6)}"

    def __enter__(self) -> Load:
        with ExitStack() as stack:
            for capture in self._captures.values():
                stack.enter_context(capture)
            far, near = self._mesh.host(FAR, 4), self._mesh.host(NEAR, 4)
            far6, near6 = self._mesh.host(FAR, 6), self._mesh.host(NEAR, 6)
            self.targets = {far: "far", far6: "far by IPv6", near: "near"}
            words = (TRY_S, self.marker, LINES)
            self.allowed = self._start(stack, WEB, ATTEMPTS, EVERY_S, *words, *self.targets)
            self.refused = [
                self._start(stack, BATCH, ATTEMPTS, 3 * EVERY_S, *words, far, near6),
                self._start(stack, OUTSIDE, ATTEMPTS, 3 * EVERY_S, *words, far, far6, near),
            ]
            self.talks = {
                "far": self._start(stack, WEB, TALK, EVERY_S, *words, far),
                "near": self._start(stack, WEB, TALK, EVERY_S, *words, near6),
            }
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stack.close()

    def _start(self, stack: ExitStack, pod: str, program: str, *words: object) -> Source:
        source = Source(self._mesh, pod, program, *words)
        stack.callback(source.close)
        return source

    def flows(self) -> None:
        """Until all that may flow does, and all that may not has been tried."""

        def flowing() -> bool:
            reached = {event["to"] for event in list(self.allowed.events) if not event["why"]}
            talking = all(any("echo" in event for event in list(talk.events)) for talk in self.talks.values())
            return reached >= self.targets.keys() and talking and all(source.events for source in self.refused)

        until("the load flows", flowing)

    def settles(self, since: float, *, within_s: float = PATIENCE_S) -> None:
        """Until every destination was reached three times by attempts begun after `since`, the last without a miss,
        and the open conversations were heard of."""

        def settled() -> bool:
            latest: dict[str, list[bool]] = defaultdict(list)
            for event in sorted(self.allowed.after(since), key=lambda event: float(event["began"])):
                latest[event["to"]].append(not event["why"])
            talking = all(talk.after(since, "at") for talk in self.talks.values())
            return talking and all(len(latest[to]) >= 3 and all(latest[to][-3:]) for to in self.targets)

        until("new connections succeed again", settled, within_s)

    def verdict(self, struck: float, over: float) -> Verdict:
        """Call it when the load has ended. The blow began to fall at `struck` and was over at `over`."""
        found = Verdict()
        for event in self.allowed.after(struck - IN_FLIGHT_S):
            found.tried += 1
            if event["why"]:
                found.failed += 1
                found.failed_later += event["began"] > struck + IN_FLIGHT_S
                found.reasons[event["why"]] = found.reasons.get(event["why"], 0) + 1
        for to, name in self.targets.items():
            good = sorted(e["ended"] for e in self.allowed.events if not e["why"] and e["to"] == to)
            window = [t for t in good if t <= struck][-1:] + [t for t in good if t > struck]
            found.worst_gap_s = max([found.worst_gap_s, *(b - a for a, b in pairwise(window))])
            back = [e["ended"] for e in self.allowed.after(over) if not e["why"] and e["to"] == to]
            if back:
                found.recovery_s = max(found.recovery_s, min(back) - over)
            else:
                found.violations.append(f"{name} was not reached again")
        for name, talk in self.talks.items():
            ends = [event["over"] for event in talk.after(struck, "at") if "over" in event]
            found.held[name] = ends[0] if ends else ""
            if not ends and not talk.after(over, "at"):
                found.held[name] = "fell silent"
        found.violations += self._forbidden()
        return found

    def _forbidden(self) -> Iterator[str]:
        for source in self.refused:
            for event in source.events:
                if event["heard"]:
                    yield f"{source.pod} was let in to {self.targets.get(event['to'], event['to'])}"
                    break
        for source in (self.allowed, *self.talks.values()):
            if any("wrong bytes" in (event.get("why"), event.get("over")) for event in source.events):
                yield f"{source.pod} got wrong bytes"
        for node, capture in self._captures.items():
            if capture.shows(self.marker.encode()):
                yield f"bytes in clear on {node}"


@contextmanager
def guarded(mesh: Journey, rules: str = RULES) -> Iterator[None]:
    """STRICT and the policies hold meanwhile."""
    mesh.lab.apply(rules)
    try:
        yield
    finally:
        mesh.lab.delete(rules)


def whole(mesh: Journey, timeout_s: float = PATIENCE_S) -> None:
    """Until `ambient check` is content."""
    until("the mesh is whole", lambda: mesh.stage.command("check", "--name", mesh.lab.name).code == 0, timeout_s)


def running(mesh: Journey, node: str, module: str) -> list[int]:
    """Pids of one part of a node's ztunnel: "ztunnel.worker", "ztunnel.director" or "ztunnel" (the supervisor)."""
    found: Iterable[int] = mesh.lab.component(node, "ztunnel")["pids"]
    return [pid for pid in found if module in _arguments(pid)]


def _arguments(pid: int) -> list[str]:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").replace("\0", " ").split(" ")
    except OSError:
        return []


@contextmanager
def nobody_restarts(mesh: Journey) -> Iterator[None]:
    """What is killed meanwhile stays dead: the lab's supervisor is frozen."""
    (pid,) = pids(place(mesh.lab.names.cgroup("supervisor")))
    mesh.lab.signal(pid, "STOP")
    try:
        yield
    finally:
        mesh.lab.signal(pid, "CONT")
