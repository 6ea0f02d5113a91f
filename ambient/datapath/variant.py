"""How pods are captured on a node: by what its kernel can, or as the node is set."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Final, Literal, Self

from ambient.datapath.programs import Via
from ambient.datapath.tc_sockets import Listeners
from ambient.errors import Unavailable

Wanted = Literal["auto", "tcx", "clsact", "nftables"]
RULES: Final = "nftables"


@dataclass(frozen=True, slots=True)
class Variant:
    """`why` this way; `schema`: of the maps (`exchange.schema`); `listeners`: which form of the programs. Of nftables,
    which needs no programs, these and what is about programs are empty, and `lacks` says what it cannot do."""

    via: Literal["tcx", "clsact", "nftables"]
    why: str
    loader: str
    version: str
    schema: str
    lacks: str = ""
    listeners: Listeners | Literal[""] = ""

    @classmethod
    def by_rules(cls, why: str) -> Self:
        return cls(
            RULES,
            why,
            "",
            "",
            "",
            "no policy, flows, plaintext alarm or same-node path in the kernel: ztunnel alone judges and tells",
        )

    def as_json(self) -> dict[str, str]:
        return asdict(self)


def choose(wanted: Wanted, *, has_tcx: bool) -> tuple[Via, str]:
    """The way for programs and the reason for it. Raises Unavailable when what is set cannot be had."""
    if wanted == "clsact":
        return "clsact", "it is set so"
    if wanted == "tcx" and not has_tcx:
        raise Unavailable("no TCX", "AMBIENT_CAPTURE=tcx", "this kernel is older than 6.6; set auto or clsact")
    if has_tcx:
        return "tcx", "it is set so" if wanted == "tcx" else "this kernel has it"
    return "clsact", "this kernel has no TCX (before 6.6)"
