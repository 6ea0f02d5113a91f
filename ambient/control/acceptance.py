"""Which nodes have taken which version of a policy, seen from all replicas together. Pure.

A replica knows how far its own clients are, counted in its own revisions. What it tells the others (`page`) therefore
holds, beside that, since which of its revisions it serves which generation of each policy.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
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


def accepted(nodes: int) -> Condition:
    """What is said of a policy that all nodes have taken."""
    return Condition(ENFORCED, "True", "Accepted", f"accepted by {nodes} of {nodes} nodes")


class Sight:
    """The pages of all replicas, looked through once. `silent`: one is missing, so nobody knows that everybody has
    anything."""

    def __init__(self, pages: Sequence[Mapping[str, Any]], *, silent: bool = False) -> None:
        self.pages = [(page["nodes"], page["policies"]) for page in pages]
        self.silent = silent
        self.lowest = [min((node["acked"] for node in nodes.values()), default=None) for nodes, _ in self.pages]
        self.refused = {name for nodes, _ in self.pages for node in nodes.values() for name in node["refuses"]}
        self.nodes = len({node for nodes, _ in self.pages for node in nodes})


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

    def verdict(self, key: str, sight: Sight) -> Condition | None:
        """Of the version that we know, as all replicas see it; None: there is no such policy."""
        known = self._since.get(key)
        if known is None:
            return None
        name = key.split("/", 1)[1]
        since = [_since(policies.get(key), known) for _, policies in sight.pages]
        if not sight.silent and sight.nodes and name not in sight.refused and _all_have(since, sight.lowest):
            return accepted(sight.nodes)
        taken: dict[str, bool] = {}
        refusals: dict[str, str] = {}
        for (nodes, _), revision in zip(sight.pages, since, strict=True):
            for node, entry in nodes.items():
                why = entry["refuses"].get(name)
                if why is not None:
                    refusals[node] = str(why)
                has = revision is not None and why is None and entry["acked"] >= revision
                taken[node] = has and taken.get(node, True)
        count = f"accepted by {sum(taken.values())} of {len(taken)} nodes"
        if not taken and not sight.silent:
            return Condition(ENFORCED, "Unknown", "NoNodes", "no node is connected")
        if refusals:
            shown = [f"{node} refuses it: {why}" for node, why in sorted(refusals.items())[:_SHOWN]]
            return Condition(ENFORCED, "False", "Refused", "; ".join([count, *shown]))
        if sight.silent:
            return Condition(ENFORCED, "Unknown", "Pending", f"{count}; another replica does not say how far its are")
        behind = sorted(node for node, has in taken.items() if not has)
        told = f"{count}; waiting for {', '.join(behind[:_SHOWN])}{' and others' if len(behind) > _SHOWN else ''}"
        return Condition(ENFORCED, "Unknown", "Pending", told)


def _since(theirs: Sequence[Any] | None, known: tuple[str, int, int]) -> int | None:
    """Since which of its revisions a replica serves the version that we know; None: it does not."""
    return theirs[2] if theirs is not None and tuple(theirs[:2]) == known[:2] else None


def _all_have(since: Sequence[int | None], lowest: Sequence[int | None]) -> bool:
    """Replicas without nodes keep nobody waiting."""
    return all(
        least is None or (revision is not None and least >= revision)
        for revision, least in zip(since, lowest, strict=True)
    )
