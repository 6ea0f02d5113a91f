"""A client's namespace and a server's that join and leave the mesh while connections open and stay open.

n1: east/web (client), west/near (server)      n2: west/far (server)
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Final

from tests.support.journey import JOIN, LEAVE, LINES, Journey, server
from tests.support.lab import SLEEP, lab_under_test, namespace_yaml, pod_yaml, until
from tests.support.load import Scene
from tests.support.survival import ATTEMPTS, TALK, TRY_S, Source

CLIENT, NEAR, FAR = "east/web", "west/near", "west/far"
OBJECTS: Final = (
    namespace_yaml("east")
    + namespace_yaml("west")
    + pod_yaml(CLIENT, SLEEP, node="n1")
    + server(NEAR, "n1")
    + server(FAR, "n2")
)
ORDERS: Final = (
    (("east", JOIN), ("west", JOIN), ("east", LEAVE), ("west", LEAVE)),
    (("west", JOIN), ("east", JOIN), ("west", LEAVE), ("east", LEAVE)),
    (("east", JOIN), ("west", JOIN), ("west", LEAVE), ("east", LEAVE)),
    (("west", JOIN), ("east", JOIN), ("east", LEAVE), ("west", LEAVE)),
)
"""Client first or server first, in and out."""
EVERY_S: Final = 0.02


@contextmanager
def two_namespaces(hint: str) -> Iterator[Journey]:
    """A lab with OBJECTS up and ready, nobody in the mesh."""
    with lab_under_test(hint) as lab:
        lab.up(OBJECTS, mesh=True)
        lab.wait_ready()
        yield Journey(lab)


def changes_under_load(mesh: Journey, orders: Sequence[Sequence[tuple[str, str]]]) -> Scene:
    """Every change of every order, one after the other, at a pace that lets connections open between them. Fifty
    connections are opened a second; before every change of the first order conversations begin that last to the end."""
    hosts = [mesh.host(pod, version) for pod in (FAR, NEAR) for version in (4, 6)]
    scene = Scene(f"{sum(map(len, orders))} changes of membership under load")
    words = (TRY_S, "m", LINES)
    with ExitStack() as stack:

        def start(program: str, every_s: float, *to: str) -> Source:
            source = Source(mesh, CLIENT, program, every_s, *words, *to)
            stack.callback(source.close)
            return source

        attempts = start(ATTEMPTS, EVERY_S, *hosts)
        talks: list[Source] = []

        def moving() -> bool:
            return all(any("echo" in event for event in list(talk.events)) for talk in talks)

        def more(count: int) -> None:
            goal = len(attempts.events) + count
            until("connections were opened", lambda: len(attempts.events) >= goal)

        more(20)
        for number, order in enumerate(orders):
            for namespace, change in order:
                if not number:
                    talks += [start(TALK, 0.1, host) for host in (hosts[0], hosts[3])]
                    until("the conversation goes on", moving)
                mesh.lab.label(namespace, change)
                more(10)
        heard = [len(talk.events) for talk in talks]
        until(
            "every conversation goes on still",
            lambda: all(len(talk.events) > was for talk, was in zip(talks, heard, strict=True)),
        )
    failed = Counter(event["why"] for event in attempts.events if event["why"])
    ended = [event["over"] for talk in talks for event in talk.events if "over" in event]
    scene.figures = {
        "tried": len(attempts.events),
        "failed": dict(failed),
        "worst_s": round(max(event["ended"] - event["began"] for event in attempts.events), 3),
        "held": len(talks),
        "held_ended": ended,
    }
    scene.broken = [f"{count} connections failed: {why}" for why, count in failed.items()]
    scene.broken += [f"a conversation ended: {why}" for why in ended]
    return scene
