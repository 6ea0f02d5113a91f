"""Many pods on three nodes, and pods that come and go while the others talk.

Pods of namespace `many` are called p0, p1, ... and take turns on the nodes; each serves (the demo's server), the first
of every node is a client, too. Namespace `brief` holds the pods that come and go.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from time import monotonic
from typing import Final

from ambient.cli.demo.stage import PYTHON
from tests.support.journey import HTTP, LINES, MODE, Journey, server
from tests.support.lab import lab_under_test, namespace_yaml, object_yaml, pod_yaml, until
from tests.support.load import Scene
from tests.support.load_ledger import at_rest, ledger, leftovers, watched
from tests.support.survival import ATTEMPTS, TALK, TRY_S, Source

NODES: Final = ("n1", "n2", "n3")
EVERY_S: Final = 0.05
_FIRST_WORD: Final = r"""
import sys, time, urllib.request
print(urllib.request.urlopen(sys.argv[1], timeout=60).read().decode(), flush=True)
time.sleep(1e6)
"""
"""Its first connection, begun at once, must succeed."""


@contextmanager
def many_pods(hint: str, count: int, env: Mapping[str, str] | None = None) -> Iterator[Journey]:
    """A mesh with so many pods in it, all ready. `env`: [PART:]KEY -> VALUE."""
    text = namespace_yaml("many", **{MODE: "ambient"}) + namespace_yaml("brief", **{MODE: "ambient"})
    text += "".join(server(f"many/p{n}", NODES[n % 3]) for n in range(count))
    with lab_under_test(hint) as lab:
        lab.up(mesh=True, env=env)
        lab.must("apply", "-f", "-", text=text, timeout_s=300)
        lab.wait_ready(timeout_s=180)
        yield Journey(lab)


def churn(mesh: Journey, count: int, rounds: int, at_once: int = 6) -> Scene:
    """`rounds` times so many pods at once come, talk and go, while the first of each node talk to all the others.
    `count` is how many pods `mesh` has."""
    scene = Scene(f"{rounds} x {at_once} pods come and go among {count} on 3 nodes")
    hosts = [mesh.host(f"many/p{n}", 4 if n % 2 else 6) for n in range(3, count)]
    with ExitStack() as stack:
        watch = stack.enter_context(watched(mesh.lab))
        come_and_go(mesh, 1, at_once, scene, hosts)
        _traffic(mesh, stack, hosts).close()
        before = at_rest(mesh)
        traffic = _Traffic(mesh, stack, hosts)
        come_and_go(mesh, rounds, at_once, scene, hosts)
        traffic.close()
        scene.broken += traffic.broken()
        scene.figures |= traffic.figures()
    scene.broken += [f"afterwards: {what}" for what in leftovers(mesh, before, within_s=60)] + watch.broken()
    scene.figures["before"] = before.text()
    scene.figures["after"] = ledger(mesh).text()
    return scene


def _traffic(mesh: Journey, stack: ExitStack, hosts: list[str]) -> _Traffic:
    """Everybody asked three times, so that what is made lazily was made."""
    traffic = _Traffic(mesh, stack, hosts)
    goal = 3 * 3 * len(hosts)
    until("everybody was asked", lambda: len(traffic.events()) >= goal, 120)
    return traffic


class _Traffic:
    def __init__(self, mesh: Journey, stack: ExitStack, hosts: list[str]) -> None:
        words = (TRY_S, "m", LINES)
        clients = [f"many/p{n}" for n in range(3)]
        self.attempts = [Source(mesh, pod, ATTEMPTS, EVERY_S, *words, *hosts) for pod in clients]
        self.talks = [Source(mesh, pod, TALK, 0.2, *words, host) for pod, host in zip(clients, hosts, strict=False)]
        for source in (*self.attempts, *self.talks):
            stack.callback(source.close)
        until("traffic flows", lambda: all(source.events for source in (*self.attempts, *self.talks)))

    def events(self) -> list[dict[str, object]]:
        return [event for source in self.attempts for event in list(source.events)]

    def close(self) -> None:
        for source in (*self.attempts, *self.talks):
            source.close()

    def broken(self) -> list[str]:
        failed = Counter(str(event["why"]) for event in self.events() if event["why"])
        ended = [event["over"] for talk in self.talks for event in talk.events if "over" in event]
        return [f"{count} connections failed: {why}" for why, count in failed.items()] + [
            f"a conversation ended: {why}" for why in ended
        ]

    def figures(self) -> dict[str, object]:
        return {"tried": len(self.events()), "failed": sum(bool(event["why"]) for event in self.events())}


def come_and_go(mesh: Journey, rounds: int, at_once: int, scene: Scene, hosts: list[str]) -> None:
    """`rounds` times so many pods come, make a connection to one of `hosts`, and go; what fails breaks `scene`."""
    slowest = 0.0
    for turn in range(rounds):
        names = [f"brief/b{n}" for n in range(at_once)]
        text = ""
        for n, pod in enumerate(names):
            host = hosts[(turn * at_once + n) % len(hosts)]
            url = f"http://[{host}]:{HTTP}/id" if ":" in host else f"http://{host}:{HTTP}/id"
            account = pod.rpartition("/")[2]
            text += object_yaml("v1", "ServiceAccount", account, "brief")
            text += pod_yaml(pod, [PYTHON, "-c", _FIRST_WORD, url], node=NODES[n % 3], account=account)
        began = monotonic()
        mesh.lab.apply(text)
        mesh.lab.wait_ready(*names)
        slowest = max(slowest, monotonic() - began)
        for pod in names:
            try:
                until(f"the first connection of {pod}", lambda pod=pod: "peer" in mesh.lab.must("logs", pod))
            except AssertionError as error:
                scene.broken.append(f"round {turn}: {error}")
        mesh.lab.delete(text)
    scene.figures["slowest_coming_s"] = round(slowest, 2)
