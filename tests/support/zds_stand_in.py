"""A process in ztunnel's place: speaks ZDS with the agent and keeps the capture contract in each pod it is given.

    python -m tests.support.zds_stand_in --socket PATH --cgroup DIR [--refuse N]

Prints one line per event ("up UID", "down UID", "snapshot"); ends on SIGTERM or when the agent closes the connection.
`--refuse N`: answer the first N adds with an error.
"""

from __future__ import annotations

import argparse
import asyncio
import os
from pathlib import Path

from ambient.errors import Unavailable
from ambient.zds import packet
from ambient.zds.codec import MAX_PACKET
from ambient.zds.session import Start, ZtunnelSession
from tests.support.capture_world import Place, World
from tests.support.stand_in import StandIn


def say(*words: str) -> None:
    print(*words, flush=True)


async def connect(path: Path) -> packet.PacketSocket:
    while True:
        try:
            return packet.connect(path)
        except Unavailable:
            await asyncio.sleep(0.01)


async def sent(sock: packet.PacketSocket, data: bytes) -> bool:
    """False: the agent died meanwhile."""
    try:
        await sock.send(data)
    except Unavailable:
        return False
    return True


async def serve(path: Path, cgroup: Path, refuse: int) -> None:
    world = World("stand-in", cgroup={"ztunnel": cgroup})
    pods: dict[str, StandIn] = {}
    while True:
        sock = await connect(path)
        session = ZtunnelSession(pods)
        if not await sent(sock, session.hello()):
            sock.close()
            continue
        while True:
            try:
                data, fds = await sock.receive(MAX_PACKET, 1)
            except Unavailable:
                data, fds = b"", []
            if not data:
                break
            before = session.ready
            effect = session.receive(data, len(fds))
            error = ""
            if isinstance(effect, Start):
                uid = effect.pod.uid
                if refuse > 0:
                    refuse -= 1
                    error = "not today"
                elif uid not in pods:
                    pods[uid] = StandIn(world, Place(uid, fds[0], {}), names=True)
                    say("up", uid)
            else:
                for uid in effect.uids:
                    gone = pods.pop(uid, None)
                    if gone is not None:
                        gone.close()
                        say("down", uid)
            if not await sent(sock, session.finish(error)):
                break
            if session.ready and not before:
                say("snapshot")
        sock.close()
        say("lost")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--socket", type=Path, required=True)
    parser.add_argument("--cgroup", type=Path, required=True)
    parser.add_argument("--refuse", type=int, default=0)
    given = parser.parse_args()
    (given.cgroup / "cgroup.procs").write_text(str(os.getpid()))
    asyncio.run(serve(given.socket, given.cgroup, given.refuse))


if __name__ == "__main__":
    main()
