"""Measuring in many short slices: each arm's load generator stays, its connections open, and goes on when told to.

A slice lasts a fraction of a second, so two arms' slices that follow each other saw the same machine, and hundreds of
such pairs are had in minutes. The beginning of each is thrown away: processors that slept, caches that the other arm
has filled.

Bulk takes turns of a second, each with streams of its own: what a stream has in the buffers on its way would be moved
in the neighbour's slice, at its expense. With the streams it is gone.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from select import select
from typing import Final, TypeVar

from ambient.cli.lab_read import exec_argv
from ambient.errors import MeshError
from bench.arms import Arm
from bench.cases import Case, Sample, port_of, run_case, sample_of
from bench.process import cpu_ns
from bench.world import World

WARM_S: Final = 0.05
"""At the beginning of each slice, not measured."""
BULK_S: Final = 1.0
"""At least so long a turn of bulk lasts; there are as many fewer of them."""
_FEWEST_TURNS: Final = 7
_REST_S: Final = 0.1
"""After a turn of bulk: what was in buffers is let go at the expense of whose it was."""
_PATIENCE_S: Final = 20.0

Found = TypeVar("Found")


class Load:
    """A load generator in a pod. Raises MeshError when it ends, says nothing, or cannot open its connections."""

    def __init__(self, process: subprocess.Popen[bytes], pod: str) -> None:
        self._process = process
        self._pod = pod

    def go_on(self) -> None:
        """Be at work from now on, until `stop()`."""
        self._say(f"{WARM_S} 0")

    def stop(self) -> dict[str, float]:
        """The figures since `go_on()`."""
        self._say("stop")
        return self.heard()

    def heard(self, within: float = _PATIENCE_S) -> dict[str, float]:
        """What it prints next: the figures of the slice that was begun."""
        assert self._process.stdout is not None
        if not select([self._process.stdout], [], [], within)[0]:
            raise MeshError("load generator", self._pod, f"said nothing for {within:.0f} s")
        line = self._process.stdout.readline()
        if not line:
            raise MeshError("load generator", self._pod, "has ended")
        found: dict[str, float] = json.loads(line)
        return found

    def slice(self, measured: float) -> dict[str, float]:
        """The figures of a slice of that many seconds (above 0), beginning now."""
        self._say(f"{WARM_S} {measured}")
        return self.heard(_PATIENCE_S + WARM_S + measured)

    def _say(self, line: str) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(f"{line}\n".encode())
            self._process.stdin.flush()
        except BrokenPipeError as error:
            raise MeshError("load generator", self._pod, "has ended") from error


@contextmanager
def running(world: World, pod: str, mode: str, host: str, port: int, connections: int) -> Iterator[Load]:
    """A load generator that waits for its first slice; it is gone afterwards."""
    argv = exec_argv(world.lab, world.lab.pod(pod), [str(world.binary), mode, host, str(port), str(connections), "-"])
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        load = Load(process, pod)
        up = int(load.heard()["up"])
        if mode != "crr" and up < connections:
            raise MeshError("load generator", pod, f"{up} of {connections} connections could be opened")
        yield load
    finally:
        for stream in (process.stdin, process.stdout):
            if stream is not None:
                stream.close()
        process.kill()
        process.wait()


@contextmanager
def opened(world: World, arm: Arm, case: Case) -> Iterator[Callable[[float], Sample]]:
    """The case in the arm, its connections open: each call measures that many seconds of it."""
    host, port = arm.reach(case.server, port_of(case))
    with running(world, arm.client, case.mode, host, port, case.connections) as load:
        pids = arm.pids()

        def take(seconds: float) -> Sample:
            before = cpu_ns(pids)
            found = load.slice(seconds)
            return sample_of(case, found, {"cpu": cpu_ns(pids) - before})

        yield take


def in_turn(takes: Mapping[str, Callable[[], Found]], rounds: int) -> dict[str, list[Found]]:
    """Each once a round. Every other round goes backwards, so that what drifts hits all alike."""
    taken: dict[str, list[Found]] = {title: [] for title in takes}
    for number in range(rounds):
        for title in order(list(takes), number):
            taken[title].append(takes[title]())
    return taken


def order(titles: Sequence[str], number: int) -> list[str]:
    """Who comes when in round `number`."""
    first = number // 2 % len(titles)
    turned = [*titles[first:], *titles[:first]]
    return turned[::-1] if number % 2 else turned


def turns_of_bulk(rounds: int, seconds: float) -> tuple[int, float]:
    """How many, and of how many seconds, instead of so many slices."""
    lasting = max(BULK_S, seconds)
    return max(_FEWEST_TURNS, round(rounds * seconds / lasting)), lasting


def alternate(world: World, arms: Sequence[Arm], case: Case, rounds: int, seconds: float) -> dict[str, list[Sample]]:
    """The case in every arm, a slice of `seconds` each a round; of bulk about as much in longer turns."""
    if case.mode == "bulk":
        rounds, seconds = turns_of_bulk(rounds, seconds)
        runs = {arm.title: partial(run_case, arm.lab or world, arm, case, seconds, rest_s=_REST_S) for arm in arms}
        return in_turn(runs, rounds)
    with ExitStack() as stack:
        takes = {arm.title: stack.enter_context(opened(arm.lab or world, arm, case)) for arm in arms}
        return in_turn({title: partial(take, seconds) for title, take in takes.items()}, rounds)
