"""How the figures of a large cluster are put together and told."""

from __future__ import annotations

from bench.control import Scale, last_percent, lines

SCALE = Scale(
    load_s=8.0,
    load_cpu_s=6.0,
    nodes_s=4.0,
    memory_loaded=200.0,
    memory_most=400.0,
    policy_ms=tuple(float(n) for n in range(1, 101)),
    pods_ms=(5.0, 5.0, 5.0),
    pods_cpu=0.25,
    first_bytes=4096 * 1024,
    back_bytes=1024,
    back_changed=1,
    derive_all_ms=800.0,
    derive_one_ms=0.5,
)


def test_the_last_percent_is_what_one_of_a_hundred_exceeds() -> None:
    assert last_percent(SCALE.policy_ms) == 99.01


def test_ratios_are_told_below_the_table() -> None:
    told = lines(SCALE)
    assert told[-2:] == [
        "deriving everything over what one pod changed: 1600",
        "octets, first connection over coming back: 4096",
    ]
    assert "| memory of the control plane, loaded / most | 200 / 400 MiB |" in told
    assert "| control plane's CPU meanwhile | 25 % of a core |" in told
