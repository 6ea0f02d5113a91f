"""The barrier is one that this kernel has; what it keeps apart cannot be seen where reads are in order anyway."""

from __future__ import annotations

from ambient.datapath.barrier import Barrier


def test_the_kernel_has_it_and_may_be_asked_again() -> None:
    first, second = Barrier(), Barrier()
    for barrier in (first, second, first):
        barrier()
