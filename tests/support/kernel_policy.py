"""The programs' verdicts beside policy's, on random policy sets and flows, through BPF_PROG_TEST_RUN."""

from __future__ import annotations

import os
from collections import Counter as Tally
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from ambient.datapath import bpfsys, deny_rows
from ambient.datapath.deny_rows import Numbers
from ambient.datapath.layout import FailMode, Flag, PodRow, Side
from ambient.datapath.maps import Maps
from ambient.model.address import ZTUNNEL_PORTS, Endpoint, IpAddress
from ambient.model.outcome import DryRun
from tests.support.deny import Scene, scene
from tests.support.frames_tcp import answers, syn

PASS, SHOT, REDIRECT = -1, 2, 7
CAPTURED = PodRow(Flag.CAPTURE_OUT | Flag.CAPTURE_IN | Flag.HBONE_IN, FailMode.OPEN, FailMode.OPEN)
"""Without a listener, which a frame on lo does not find: what is not refused passes."""


@dataclass
class Programs:
    """Both programs of a pod, to be run on frames."""

    maps: Maps
    ingress: int
    egress: int
    numbers: Numbers = field(default_factory=Numbers)

    def tell(self, pod: IpAddress, one: Scene, *, arriving: bool) -> None:
        """Put the scene's rows."""
        enforced = deny_rows.enforced(one.rows.enforced, self.numbers)
        shadow = deny_rows.shadow(one.rows.shadow, self.numbers)
        for number in self.numbers.made:
            self.maps.shadow.make(number)
        self.numbers.made.clear()
        sides = (Side.IN, Side.SHADOW_IN) if arriving else (Side.OUT, Side.SHADOW_OUT)
        refused = self.maps.deny.replace({(pod, sides[0]): enforced, (pod, sides[1]): shadow})
        assert not refused, refused

    def forget(self, pod: IpAddress) -> None:
        self.maps.deny.delete([(pod, side) for side in Side])
        self.maps.shadow.clear()
        self.numbers = Numbers()

    def refuses(self, source: Endpoint, destination: Endpoint, *, arriving: bool) -> bool:
        """The verdict on an opening packet; a refusal must be a proper answer."""
        asked = syn(source, destination)
        verdict, frame = bpfsys.run_once(self.ingress if arriving else self.egress, asked)
        if verdict == PASS:
            return False
        assert verdict == REDIRECT, verdict
        assert answers(frame, asked)
        return True

    def dry_run(self) -> Tally[DryRun]:
        """How often each effect was counted."""
        found: Tally[DryRun] = Tally()
        for number, count in self.maps.shadow.items().items():
            for effect in self.numbers.effects(number):
                found[effect] += count
        return found


@contextmanager
def programs_of(bpffs: Path) -> Iterator[Programs]:
    pinned = next((bpffs / "programs").iterdir())
    with (
        Maps.open(bpffs) as maps,
        bpfsys.opened(pinned / "pod_ingress") as ingress,
        bpfsys.opened(pinned / "pod_egress") as egress,
    ):
        yield Programs(maps, ingress, egress)


@dataclass
class Compared:
    """`pairs` of (policy set, flow), how many were refused, and those on which kernel and policy differ."""

    pairs: int = 0
    refused: int = 0
    effects: int = 0
    differences: list[str] = field(default_factory=list)


def compare(programs: Programs, seed: int, scenes: int, flows: int, *, sabotage: bool = False) -> Compared:
    """`sabotage`: for one policy set in three the kernel has the rows of another one."""
    random = Random(seed)
    result = Compared()
    for number in range(scenes):
        arriving = number % 2 == 0
        one = scene(random, arriving=arriving)
        pod = one.address if arriving else one.sources[0]
        programs.maps.pods.put(pod, CAPTURED)
        turned = scene(Random(seed + number), arriving=arriving) if sabotage and number % 3 == 0 else one
        programs.tell(pod, turned, arriving=arriving)
        wanted = Tally[DryRun]()
        for _ in range(flows):
            source, port = one.flow(random)
            if port in ZTUNNEL_PORTS:
                continue
            connection = one.connection(source, port)
            refused = programs.refuses(Endpoint(source, 40_000), Endpoint(one.address, port), arriving=arriving)
            result.pairs += 1
            result.refused += refused
            if refused != one.denied(connection):
                result.differences.append(f"seed {seed} scene {number}: {connection}: kernel {refused}")
            wanted.update(one.dry_run(connection))
        told = programs.dry_run()
        if +told != wanted:
            result.differences.append(f"seed {seed} scene {number}: dry run {told}, not {wanted}")
        result.effects += wanted.total()
        programs.forget(pod)
        programs.maps.pods.delete(pod)
    return result


def scratch(name: str) -> Path:
    return Path(f"/sys/fs/bpf/amb-{name}-{os.getpid()}")
