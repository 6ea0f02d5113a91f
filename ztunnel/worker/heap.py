"""Memory that a busy time took and that is free again goes back to the node."""

from __future__ import annotations

import ctypes
from typing import Final

EVERY_S: Final = 60.0
"""It takes half a millisecond where there is much to give back."""
_TRIM: Final = getattr(ctypes.CDLL(None), "malloc_trim", None)
"""glibc's: it gives back by itself only what lies at the end of its heap (malloc_trim(3))."""


def give_back() -> None:
    """Give whole free pages of the heap back to the kernel; nothing with another C library."""
    if _TRIM is not None:
        _TRIM(0)
