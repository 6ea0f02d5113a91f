"""The arms of a comparison: how each reaches a server, and which processes carry its traffic."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from bench.world import BARE, MESH, World

Reach = Callable[[str, int], tuple[str, int]]
"""(server "near" or "far", port) -> address and port that the client dials."""


@dataclass(frozen=True, slots=True)
class Arm:
    """`pids`: all proxy processes of both ends. `title` is what tables call it."""

    title: str
    client: str
    reach: Reach
    pids: Callable[[], list[int]]


def no_pids() -> list[int]:
    """No proxy at all."""
    return []


def ours(world: World) -> Arm:
    """eBPF capture and our ztunnel."""
    return Arm("ambient", f"{MESH}/client", lambda server, port: _pod(world, MESH, server, port), world.ztunnel_pids)


def bare(world: World) -> Arm:
    """No mesh."""
    return Arm("no mesh", f"{BARE}/client", lambda server, port: _pod(world, BARE, server, port), no_pids)


def _pod(world: World, namespace: str, server: str, port: int) -> tuple[str, int]:
    return world.address(f"{namespace}/{server}"), port
