"""What the bench of a policy on real nodes prints."""

from __future__ import annotations

from bench.enforced import Enforced, lines


def test_the_middle_nine_of_ten_and_the_slowest_are_told() -> None:
    told = lines(Enforced(tuple(float(at) for at in range(1, 11)), (5.0, 7.0, 6.0)))
    assert "| created: cut and refused | 5.5 | 10.0 | 10.0 |" in told
    assert "| deleted: served again | 6.0 | 7.0 | 7.0 |" in told
    assert told[-1].startswith("10 rounds")
