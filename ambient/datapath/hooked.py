"""What stands for a program on a hook in a pod's directory: a pinned link (TCX, SK_LOOKUP), or the place of a filter.

The four questions that are asked of either, so that nobody else has to tell them apart.
"""

from __future__ import annotations

from pathlib import Path

from ambient.datapath import bpfsys, clsact


def target(pin: Path) -> int:
    """Where it is: the ifindex, or the inode of the namespace for SK_LOOKUP; 0 when that is gone, or the filter.
    Raises FileNotFoundError."""
    place = clsact.place_of(pin)
    if place is None:
        return bpfsys.link_target(pin)
    return place.ifindex if clsact.program_of(place) else 0


def program(pin: Path) -> int:
    """The number of the program that runs there; 0 without one. Raises FileNotFoundError."""
    place = clsact.place_of(pin)
    return bpfsys.link_program(pin) if place is None else clsact.program_of(place)


def put_program(pin: Path, wanted: Path) -> None:
    """Have this program run there, if it does not; exchanged in one step."""
    if program(pin) == bpfsys.program_id(wanted):
        return
    place = clsact.place_of(pin)
    if place is not None:
        clsact.put(place, wanted)
        return
    with bpfsys.opened(pin) as link, bpfsys.opened(wanted) as descriptor:
        bpfsys.update_link(link, descriptor, str(pin))


def take_off(pin: Path) -> None:
    """The program runs there no more, and the pin is gone. Raises FileNotFoundError."""
    place = clsact.place_of(pin)
    if place is None:
        bpfsys.detach_link(pin)
    else:
        clsact.detach(place)
    pin.unlink()
