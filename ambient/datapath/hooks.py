"""Which program belongs on which hook. The names are those of the programs in `bpf/` and of the link pins."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Literal

Side = Literal["netns", "lo", "pod", "host", "node"]


class Attach(IntEnum):
    """enum bpf_attach_type, as far as we use it."""

    SOCK_OPS = 3
    SK_LOOKUP = 36
    TCX_INGRESS = 46
    TCX_EGRESS = 47


@dataclass(frozen=True, slots=True)
class Hook:
    """`side`: the pod's namespace itself, its lo, its interface, the host's end of its veth, or the node's control
    groups."""

    program: str
    side: Side
    attach: Attach


HOOKS: Final = (
    Hook("pod_lookup", "netns", Attach.SK_LOOKUP),
    Hook("pod_lo", "lo", Attach.TCX_INGRESS),
    Hook("pod_ingress", "pod", Attach.TCX_INGRESS),
    Hook("pod_egress", "pod", Attach.TCX_EGRESS),
    Hook("host_egress", "host", Attach.TCX_EGRESS),
    Hook("host_ingress", "host", Attach.TCX_INGRESS),
)
"""In the order of attaching: a program is there before the one that relies on it."""
NODE_HOOKS: Final = (Hook("socket_flows", "node", Attach.SOCK_OPS),)
"""Once per node."""
