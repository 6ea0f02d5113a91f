"""Planned restarts of ztunnel, one after the other on both nodes, while connections are opened as fast as asked.

    with journey("restart") as mesh, peers(mesh):
        scene = restarts(mesh, connections=60_000, per_second=400)

Every new connection must succeed, and every conversation that is shorter than the drain time must come to its own
end; one that would go on for ever is heard until the drain time of the ztunnel that leaves is over.
"""

from __future__ import annotations

import json
import threading
from contextlib import ExitStack
from time import monotonic
from typing import Any, Final

from ambient.cli.demo.stage import PYTHON
from ambient.lab.process import alive
from tests.support.journey import FAR, LINES, NEAR, WEB, Journey
from tests.support.lab import until
from tests.support.load import Scene
from tests.support.survival import TALK, TRY_S, Source

DRAIN_S: Final = 5.0
"""What the lab's ztunnels give open connections."""
TALK_S: Final = 3.0

OPENER: Final = r"""
import asyncio, itertools, json, resource, sys, time
rate, talks, lasting, *hosts = sys.argv[1:]
rate, talks, lasting = float(rate), int(talks), float(lasting)
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
took, failed, talked, cut = [], [], 0, []
stop = asyncio.Event()
async def connect(host, first):
    reader, writer = await asyncio.open_connection(host, 7200)
    writer.write(b"echo\n" + first)
    return reader, writer
async def one(number, host):
    began, text = time.monotonic(), b"number %d" % number
    try:
        async with asyncio.timeout(25):
            reader, writer = await connect(host, text)
            writer.write_eof()
            back = await reader.read()
            writer.close()
        if back != text:
            raise OSError(f"{len(back)} octets of {len(text)}")
        took.append(time.monotonic() - began)
    except (OSError, TimeoutError) as error:
        failed.append([time.monotonic(), f"{type(error).__name__}: {error}"])
async def talk(turn):
    global talked
    for number in itertools.count(turn):
        if stop.is_set():
            return
        began, heard = time.monotonic(), 0
        try:
            reader, writer = await connect(hosts[number % len(hosts)], b"")
            while time.monotonic() - began < lasting:
                text = b"word %d\n" % heard
                writer.write(text)
                async with asyncio.timeout(25):
                    if await reader.readexactly(len(text)) != text:
                        raise OSError("other words")
                heard += 1
                await asyncio.sleep(0.05)
            writer.write_eof()
            if await reader.read():
                raise OSError("more than was said")
            writer.close()
            talked += 1
        except (OSError, EOFError, TimeoutError) as error:
            cut.append([time.monotonic(), f"after {heard} words: {type(error).__name__}: {error}"])
async def main():
    loop, running = asyncio.get_running_loop(), set()
    loop.add_reader(sys.stdin, stop.set)
    talking = [asyncio.ensure_future(talk(n)) for n in range(talks)]
    began = told = time.monotonic()
    for number in itertools.count():
        if stop.is_set():
            break
        task = asyncio.ensure_future(one(number, hosts[number % len(hosts)]))
        running.add(task)
        task.add_done_callback(running.discard)
        # Whoever cannot keep up opens fewer, not ever more at once.
        while len(running) > 200:
            await asyncio.sleep(0.001)
        now = time.monotonic()
        if now - told > 0.5:
            told = now
            print(json.dumps({"opened": len(took) + len(failed)}), flush=True)
        await asyncio.sleep(max(0.0, began + (number + 1) / rate - now) if began + number / rate > now - 1 else 0)
    await asyncio.gather(*running, *talking)
    took.sort()
    print(json.dumps(dict(
        opened=len(took) + len(failed), failed=failed, talked=talked, cut=cut, seconds=time.monotonic() - began,
        p50_ms=1000 * took[len(took) // 2], p99_ms=1000 * took[len(took) * 99 // 100], worst_ms=1000 * took[-1])))
asyncio.run(main())
"""


class Opening:
    """OPENER in the client's pod; `opened` grows."""

    def __init__(self, mesh: Journey, per_second: float) -> None:
        hosts = [mesh.host(FAR, 4), mesh.host(FAR, 6), mesh.host(NEAR, 4)]
        self._process = mesh.lab.start(WEB, PYTHON, "-u", "-c", OPENER, str(per_second), "8", str(TALK_S), *hosts)
        self._said: dict[str, Any] = {}
        self.opened = 0
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._said = json.loads(line)
            self.opened = self._said["opened"]

    def end(self) -> dict[str, Any]:
        """What became of all of them."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        self._reader.join(120)
        assert "seconds" in self._said, self._process.communicate()
        return self._said

    def close(self) -> None:
        self._process.kill()
        self._reader.join()  # before communicate() closes the pipe under it
        self._process.communicate()


def restart(mesh: Journey, node: str, how: str) -> None:
    """Send a node's ztunnel a signal to end; until it has, and another one is there."""
    before = mesh.lab.component(node, "ztunnel")["pid"]
    mesh.lab.signal(before, how)
    until("it has ended", lambda: not alive(before))
    until("another one runs", lambda: mesh.lab.component(node, "ztunnel")["pid"] not in (None, before))


def restarts(mesh: Journey, connections: int, per_second: float = 400.0, how: str = "TERM") -> Scene:
    """Restart n1 and n2 by turns until so many connections were opened; `peers(mesh)` must be running."""
    scene = Scene(f"restarts while at least {connections} connections are opened")
    done = 0
    lived: list[float] = []
    with ExitStack() as stack:
        opening = Opening(mesh, per_second)
        stack.callback(opening.close)
        while opening.opened < connections or done < 2:
            node = ("n1", "n2")[done % 2]
            talk = Source(mesh, WEB, TALK, 0.05, TRY_S, "m", LINES, mesh.host(FAR, 4))
            stack.callback(talk.close)
            until("a conversation goes on", lambda talk=talk: len(talk.events) > 5)
            struck = monotonic()
            restart(mesh, node, how)
            done += 1
            until("the conversation was ended", lambda talk=talk: any("over" in e for e in list(talk.events)))
            lived.append(next(event["at"] for event in talk.events if "over" in event) - struck)
            talk.close()
        said = opening.end()
    scene.figures = {
        "restarts": done,
        "new connections": said["opened"],
        "failed": len(said["failed"]),
        "per second": round(said["opened"] / said["seconds"]),
        "p50 ms": said["p50_ms"],
        "p99 ms": said["p99_ms"],
        "worst ms": said["worst_ms"],
        f"conversations of {TALK_S:.0f} s": said["talked"],
        "of them cut": len(said["cut"]),
        "endless conversations lived on for s": f"{min(lived):.1f} to {max(lived):.1f}",
    }
    scene.broken = [f"a connection failed: {why}" for _, why in said["failed"][:10]]
    scene.broken += [f"a conversation was cut {why}" for _, why in said["cut"][:10]]
    if said["opened"] < connections:
        scene.broken.append(f"only {said['opened']} connections")
    if min(lived) < DRAIN_S:
        scene.broken.append(f"a conversation ended {min(lived):.1f} s after the order, the drain time is {DRAIN_S} s")
    return scene
