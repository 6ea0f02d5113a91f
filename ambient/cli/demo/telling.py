"""How the story is told: chapters, and lines that either hold or end it."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from ambient.cli.demo.stage import Broken
from ambient.cli.env import Env


class Telling:
    """Prints as it goes. `holds` is the only way to say that something is true."""

    def __init__(self, env: Env, clock: Callable[[], float] = monotonic) -> None:
        self._env = env
        self._clock = clock
        self._began = clock()
        self.lines = 0
        self.chapters = 0

    @property
    def seconds(self) -> float:
        return self._clock() - self._began

    def chapter(self, title: str) -> None:
        self.chapters += 1
        self._say(f"\n{self.chapters}. {title}")

    def holds(self, line: str, fact: object, evidence: object = "") -> None:
        """Tell a line of the story, or raise Broken when its fact is not true; `evidence` goes with either."""
        if not fact:
            self._say(f"   FAIL  {line}")
            raise Broken(line, f"chapter {self.chapters}", str(evidence) or f"the fact is {fact!r}")
        self.lines += 1
        self._say(f"   ok    {line}" + (f"  [{evidence}]" if evidence else ""))

    def note(self, text: str) -> None:
        self._say(f"         {text}")

    def _say(self, text: str) -> None:
        self._env.line(text)
        self._env.stdout.flush()
