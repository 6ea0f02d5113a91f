"""The arms of a comparison: how each reaches a server, and which processes carry its traffic."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from bench.world import BARE, MESH, World, world
from ztunnel.compiled import SWITCH

Reach = Callable[[str, int], tuple[str, int]]
"""(server "near" or "far", port) -> address and port that the client dials."""


@dataclass(frozen=True, slots=True)
class Arm:
    """`pids`: all proxy processes of both ends. `title` is what tables call it. `lab`: the one it is in, where that is
    not the one of the other arms."""

    title: str
    client: str
    reach: Reach
    pids: Callable[[], list[int]]
    lab: World | None = None


def no_pids() -> list[int]:
    """No proxy at all."""
    return []


def ours(world: World) -> Arm:
    """eBPF capture and our ztunnel."""
    return Arm("ambient", f"{MESH}/client", lambda server, port: _pod(world, MESH, server, port), world.ztunnel_pids)


@contextmanager
def interpreted(workers: int, folder: Path, env: Sequence[str]) -> Iterator[Arm]:
    """The same in a second lab, whose workers run the sources and nothing compiled from them."""
    with world(workers, folder, [*env, f"ztunnel:{SWITCH}=never"], suffix="-plain") as lab:
        yield replace(ours(lab), title="interpreted", lab=lab)


def again(world: World) -> Arm:
    """The very same, as if it were another: whatever is found between the two is the method's."""
    return replace(ours(world), title="again")


def bare(world: World) -> Arm:
    """No mesh."""
    return Arm("no mesh", f"{BARE}/client", lambda server, port: _pod(world, BARE, server, port), no_pids)


def _pod(world: World, namespace: str, server: str, port: int) -> tuple[str, int]:
    return world.address(f"{namespace}/{server}"), port
