"""What a peer makes us do for nothing, counted against its limits: floods of small frames and streams reset unused.

Who goes beyond a limit is told ENHANCE_YOUR_CALM; the reason names the kind of frame that went beyond it.
"""

from __future__ import annotations

from typing import Final

from ztunnel.hbone.frames import Code
from ztunnel.hbone.limits import Limits, Violation

REQUEST: Final = 8
"""What a request costs beyond a frame that only brings octets: it is a connection to an application."""
_CROSSING: Final = 2
"""Frames on a stream that may be on their way when we reset it."""


class Costs:
    """The account of one connection. Every method but `tick`, `refused`, `answered` and `cut_off` raises Violation."""

    __slots__ = ("_controls", "_crossing", "_limits", "_paid", "_updates", "_wasted", "for_nothing")

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._controls = 0
        self._crossing = 0
        """Frames on dead streams that the peer may have sent before it knew."""
        self._updates = 0
        self._paid = limits.max_control_per_tick
        """How many window updates are covered, by the allowance of this second and by octets that we sent."""
        self._wasted = 0
        self.for_nothing = 0
        """What was done this second, in frames, that nobody needed, since the owner last set it to 0."""

    def tick(self) -> None:
        """A second has passed."""
        self._controls = self.for_nothing = 0
        self._paid = self._updates + self._limits.max_control_per_tick

    def control(self, reason: str) -> None:
        """A frame that costs us and gives nothing."""
        self._controls += 1
        self.for_nothing += 1
        if self._controls > self._limits.max_control_per_tick:
            raise Violation(Code.ENHANCE_YOUR_CALM, reason, "too many control frames")

    def cut_off(self) -> None:
        """We have reset a stream: what the peer says on it before it reads that (its own reset, a window) is no fault
        of its. Else streams that are refused by the thousand would end the others beside them."""
        self._crossing = min(self._crossing + _CROSSING, self._limits.max_control_per_tick)

    def dead(self) -> None:
        """A frame on a stream that has ended."""
        if self._crossing:
            self._crossing -= 1
        else:
            self.control("dead_stream_flood")

    def update(self) -> bool:
        """A window update. False: more of them than are covered, `pay` or give up."""
        self._updates += 1
        return self._updates <= self._paid

    def pay(self, octets: int) -> None:
        """So many octets were sent since the last call: a peer that acknowledges each of them twice, on its stream
        and on the connection, is only thorough."""
        self._paid += 2 * octets
        if self._updates > self._paid:
            raise Violation(Code.ENHANCE_YOUR_CALM, "window_update_flood", "too many window updates")

    def wasted(self) -> None:
        """A stream that cost us work and came to nothing."""
        self._wasted += 1
        self.for_nothing += REQUEST
        if self._wasted > self._limits.max_reset_debt:
            raise Violation(Code.ENHANCE_YOUR_CALM, "rapid_reset", "too many streams reset before an answer")

    def refused(self) -> None:
        """A request was answered with no."""
        self.for_nothing += REQUEST

    def answered(self) -> None:
        """A stream got its answer, which makes one wasted good."""
        if self._wasted:
            self._wasted -= 1
