"""While programs give way to those that note elsewhere what pod_lookup is to give, nothing is noted.

The new pod_ingress and pod_lo would write where the old pod_lookup, exchanged after them, does not look: an opening
packet that depends on it would be the application's, unjudged. It is refused for so long, and its sender repeats it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from ambient.datapath import bpfinfo, bpfsys
from ambient.datapath.barrier import grace_period
from ambient.datapath.carry import layouts
from ambient.datapath.layout import Option

_NOTES: Final = "reservations"
_CONFIG: Final = "config"
_WORD: Final = 4
"""The options are the first word of the entry, in every version (config.h)."""


@contextmanager
def unnoted(old: Path, new: Path) -> Iterator[None]:
    """`old`, `new`: the maps of either version; nothing happens where they have the notes in common. May be ended
    anywhere and begun anew, until pins in `old` are those of `new`. Raises KernelError."""
    with ExitStack() as stack:
        if _differ(old / _NOTES, new / _NOTES):
            for directory in (old, new):
                stack.enter_context(_refusing(directory))
            # Whoever did not see it yet has been looked up when this is over.
            grace_period()
            stack.callback(grace_period)
        yield


def _differ(old: Path, new: Path) -> bool:
    with suppress(FileNotFoundError):
        return bpfinfo.map_id(old) != bpfinfo.map_id(new)
    return False


@contextmanager
def _refusing(directory: Path) -> Iterator[None]:
    layout = layouts(directory).get(_CONFIG)
    if layout is None:
        yield
        return
    table = bpfsys.Map(directory / _CONFIG, layout.key.size, layout.value.size)

    def put(*, refusing: bool) -> None:
        first = bytes(layout.key.size)
        value = table.get(first) or bytes(layout.value.size)
        word = int.from_bytes(value[:_WORD], sys.byteorder) & ~Option.EXCHANGING
        word |= Option.EXCHANGING if refusing else 0
        table.put(first, word.to_bytes(_WORD, sys.byteorder) + value[_WORD:])

    try:
        put(refusing=True)
        yield
        put(refusing=False)
    finally:
        table.close()
