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
        self.maps.deny.replace(pod, Side.IN if arriving else Side.OUT, enforced)
        self.maps.deny.replace(pod, Side.SHADOW_IN if arriving else Side.SHADOW_OUT, shadow)

    def forget(self, pod: IpAddress) -> None:
        for side in Side:
            self.maps.deny.delete(pod, side)

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
    """`sabotage`: one rule in three is told to the kernel with its action turned."""
    random = Random(seed)
    result = Compared()
    for number in range(scenes):
        arriving = number % 2 == 0
        one = scene(random, arriving=arriving)
        pod = one.address if arriving else one.sources[0]
        programs.maps.pods.put(pod, CAPTURED)
        told = scene(Random(seed + number), arriving=arriving) if sabotage and number % 3 == 0 else one
        programs.tell(pod, told, arriving=arriving)
        before, wanted = programs.dry_run(), Tally[DryRun]()
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
        if programs.dry_run() - before != wanted:
            result.differences.append(f"seed {seed} scene {number}: dry run {programs.dry_run() - before} not {wanted}")
        result.effects += wanted.total()
        programs.forget(pod)
        programs.maps.pods.delete(pod)
    return result


def scratch(name: str) -> Path:
    return Path(f"/sys/fs/bpf/amb-{name}-{os.getpid()}")
