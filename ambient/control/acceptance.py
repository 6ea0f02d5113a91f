"""Which nodes have taken which version of a policy, seen from all replicas together. Pure.

A replica knows how far its own clients are, counted in its own revisions. What it tells the others (`page`) therefore
holds, beside that, since which of its revisions it serves which generation of each policy.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final, Protocol

from ambient.kube.objects import AuthorizationPolicy, Condition, PeerAuthentication, Record, Records

ENFORCED: Final = "ambient.mesh/Enforced"
KINDS: Final = (AuthorizationPolicy, PeerAuthentication)
_SHOWN: Final = 3


class Stream(Protocol):
    """What a client has acknowledged (`ambient.xds.server.DeltaStream`)."""

    @property
    def acked(self) -> int: ...

    @property
    def nacks(self) -> Mapping[str, str]: ...


def is_policy(record: Record | None) -> bool:
    return isinstance(record, KINDS)


class Acceptance:
    """What one replica knows. `hear` every snapshot before it is served."""

    def __init__(self) -> None:
        self._since: dict[str, tuple[str, int, int]] = {}

    @property
    def policies(self) -> Collection[str]:
        """Keys of all valid policies."""
        return self._since.keys()

    def hear(self, records: Records) -> list[str]:
        """Keys of policies that are new, changed or gone. What is stored but invalid counts as gone: its condition
        says so."""
        refused = {one.key for one in records.refused}
        changed: Iterable[str] = records.by_key if records.changed is None else records.changed
        news = []
        for key in changed:
            record = records.by_key.get(key)
            if record is not None and is_policy(record) and key not in refused:
                self._since[key] = (record.uid, record.generation, records.revision)
                news.append(key)
            elif self._since.pop(key, None) is not None:
                news.append(key)
        return news

    def page(self, clients: Iterable[tuple[str, Stream]]) -> dict[str, Any]:
        """What other replicas have to know: `clients` are (node, stream)."""
        nodes: dict[str, dict[str, Any]] = {}
        for node, stream in clients:
            entry = nodes.setdefault(node, {"acked": stream.acked, "refuses": {}})
            entry["acked"] = min(entry["acked"], stream.acked)
            entry["refuses"].update(stream.nacks)
        return {"nodes": nodes, "policies": self._since}

    def verdict(self, key: str, pages: Iterable[Mapping[str, Any]], *, silent: bool = False) -> Condition | None:
        """Of the version that we know, by all these pages; None: there is no such policy. `silent`: a page is missing,
        so nobody knows that everybody has it."""
        known = self._since.get(key)
        if known is None:
            return None
        taken: dict[str, bool] = {}
        refusals: dict[str, str] = {}
        name = key.split("/", 1)[1]
        for page in pages:
            theirs = page["policies"].get(key)
            same = theirs is not None and tuple(theirs[:2]) == known[:2]
            for node, entry in page["nodes"].items():
                why = entry["refuses"].get(name)
                if why is not None:
                    refusals[node] = str(why)
                has = same and why is None and entry["acked"] >= theirs[2]
                taken[node] = has and taken.get(node, True)
        count = f"accepted by {sum(taken.values())} of {len(taken)} nodes"
        if not taken and not silent:
            return Condition(ENFORCED, "Unknown", "NoNodes", "no node is connected")
        if refusals:
            shown = [f"{node} refuses it: {why}" for node, why in sorted(refusals.items())[:_SHOWN]]
            return Condition(ENFORCED, "False", "Refused", "; ".join([count, *shown]))
        if silent:
            return Condition(ENFORCED, "Unknown", "Pending", f"{count}; another replica does not say how far its are")
        if all(taken.values()):
            return Condition(ENFORCED, "True", "Accepted", count)
        behind = sorted(node for node, has in taken.items() if not has)
        told = f"{count}; waiting for {', '.join(behind[:_SHOWN])}{' and others' if len(behind) > _SHOWN else ''}"
        return Condition(ENFORCED, "Unknown", "Pending", told)
