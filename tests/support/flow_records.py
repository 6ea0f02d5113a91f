"""Flow records as a worker would have packed them."""

from __future__ import annotations

from collections.abc import Sequence

from ztunnel.ipc.flows import FlowEnds, FlowEvent, FlowRecord, pack


def packed(records: Sequence[FlowRecord]) -> bytes:
    """All of them, of one node, as one value."""
    ends: dict[FlowEnds, int] = {}
    events = []
    for record in records:
        common = FlowEnds(*(getattr(record, name) for name in FlowEnds.__struct_fields__))
        own = (getattr(record, name) for name in FlowEvent.__struct_fields__[1:])
        events.append(FlowEvent(ends.setdefault(common, len(ends)), *own))
    return pack(records[0].node if records else "", list(ends), events)
