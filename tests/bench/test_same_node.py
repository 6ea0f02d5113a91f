"""What is said of the kernel path follows the figures."""

from __future__ import annotations

from bench.same_node import Beside, lines
from bench.stats import Ratio


def test_the_budget_is_held_from_one_on_and_the_table_says_so() -> None:
    held = Beside("bulk1-same", "gbit", 20.0, 18.0, Ratio(1.1, 1.0, 1.2, 7))
    missed = Beside("rr1-same", "p50", 20.0, 18.0, Ratio(0.9, 0.8, 1.1, 7))
    assert (held.held, missed.held) == (True, False)
    text = "\n".join(lines([held, missed]))
    assert "| bulk1-same, gbit | 20.0 | 18.0 | 1.10 (1.00-1.20) | held |" in text
    assert text.count("**missed**") == 1
