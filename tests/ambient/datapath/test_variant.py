"""How programs come onto interfaces: as the kernel can, as it is set, and never silently otherwise."""

from __future__ import annotations

import pytest

from ambient.datapath.variant import choose
from ambient.errors import Unavailable


def test_what_the_kernel_has_is_taken_by_itself() -> None:
    assert choose("auto", has_tcx=True) == ("tcx", "this kernel has it")
    assert choose("auto", has_tcx=False) == ("clsact", "this kernel has no TCX (before 6.6)")


def test_what_is_set_is_taken_or_refused_by_name() -> None:
    assert choose("clsact", has_tcx=True) == ("clsact", "it is set so")
    assert choose("tcx", has_tcx=True) == ("tcx", "it is set so")
    with pytest.raises(Unavailable, match=r"AMBIENT_CAPTURE=tcx.*older than 6\.6"):
        choose("tcx", has_tcx=False)
