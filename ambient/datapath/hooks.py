"""Which program belongs on which hook. The names are those of the programs in `bpf/` and of the link pins."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

Side = Literal["pod", "lo", "host"]


@dataclass(frozen=True, slots=True)
class Hook:
    """`side`: the pod's interface, the pod's lo, or the host's end of the pod's veth."""

    program: str
    side: Side
    egress: bool


HOOKS: Final = (
    Hook("pod_lo", "lo", egress=False),
    Hook("pod_ingress", "pod", egress=False),
    Hook("pod_egress", "pod", egress=True),
    Hook("host_egress", "host", egress=True),
    Hook("host_ingress", "host", egress=False),
)
"""In the order of attaching: what receives looped packets is there before what loops them."""
