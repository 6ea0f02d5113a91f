"""Spoilt inputs without end for whatever parses octets from outside: mutated from good ones, the same ones for a seed.

A target either accepts an input or refuses it with an error of ours. Anything else it raises is a crash; `fuzz` lets
that through with the input that caused it.
"""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ambient.errors import MeshError

_INTERESTING: Final = (0, 1, 0x3F, 0x7F, 0x80, 0xC0, 0xFE, 0xFF)
_LENGTHS: Final = (b"\0\0", b"\0\1", b"\x7f\xff", b"\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff")
_LARGEST: Final = 1 << 16
"""Octets of an input: splicing must not let them grow without end."""
_WARM: Final = 1_000


@dataclass(frozen=True)
class Target:
    """`feed` takes one input: True when it was accepted, False when the target says so itself that it was not.
    `seeds`: good inputs."""

    name: str
    seeds: Sequence[bytes]
    feed: Callable[[bytes], bool]


@dataclass(frozen=True)
class Crash(Exception):
    """An input that ended in something else than acceptance or a refusal."""

    target: str
    data: bytes
    error: Exception

    def __str__(self) -> str:
        return f"{self.target}: {type(self.error).__name__}: {self.error} for {self.data.hex()}"


@dataclass(frozen=True)
class Result:
    """`objects`, `kb`: how much more there was at the end than after the first. `slowest_s`: CPU of one input."""

    target: str
    inputs: int
    accepted: int
    slowest_s: float
    objects: int
    kb: int


def mutants(seeds: Sequence[bytes], rng: random.Random) -> Iterator[bytes]:
    """The seeds, then mutants of them without end."""
    yield from seeds
    while True:
        data = bytearray(rng.choice(seeds))
        for _ in range(rng.choice((1, 1, 2, 3, 8))):
            _mutate(data, seeds, rng)
        yield bytes(data[:_LARGEST])


def _mutate(data: bytearray, seeds: Sequence[bytes], rng: random.Random) -> None:
    at = rng.randrange(len(data) + 1)
    to = min(len(data), at + rng.choice((1, 2, 4, 9, 40)))
    match rng.randrange(8):
        case 0 if data:
            data[at - 1] ^= 1 << rng.randrange(8)
        case 1 if data:
            data[at - 1] = rng.choice(_INTERESTING)
        case 2:
            del data[at:to]
        case 3:
            data[at:at] = data[at:to] * rng.choice((1, 2, 30))
        case 4:
            data[at:at] = rng.randbytes(rng.choice((1, 2, 4, 9, 40)))
        case 5:
            length = rng.choice(_LENGTHS)
            data[at : at + len(length)] = length
        case 6:
            other = rng.choice(seeds)
            data[at:] = other[rng.randrange(len(other) + 1) :]
        case _:
            del data[at:]


def fuzz(target: Target, count: int, seed: int = 0) -> Result:
    """Feed `count` inputs. Raises Crash."""
    inputs = mutants(target.seeds, random.Random(f"{target.name} {seed}"))
    accepted, slowest = 0, 0.0
    before: tuple[int, int] | None = None
    for number in range(count):
        if number == min(_WARM, count // 2):
            before = _held()
        data = next(inputs)
        begun = time.thread_time()
        try:
            accepted += bool(target.feed(data))
        except MeshError:
            pass
        except Exception as error:
            raise Crash(target.name, data, error) from error
        slowest = max(slowest, time.thread_time() - begun)
    objects, kb = _held()
    assert before is not None
    return Result(target.name, count, accepted, slowest, objects - before[0], kb - before[1])


def _held() -> tuple[int, int]:
    gc.collect()
    fields = Path("/proc/self/smaps_rollup").read_text().split()
    return len(gc.get_objects()), int(fields[fields.index("Private_Dirty:") + 1])
