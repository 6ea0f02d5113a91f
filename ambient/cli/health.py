"""What `status` and `check` say about each part: one finding per part, from its readiness and the control's `/sync`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from ambient.cli.dump import Dump
from ambient.cli.gather import dump_of, read_json
from ambient.cli.reach import Answer, Reach
from ambient.errors import MeshError
from ambient.model.address import READY_PORT

Json = Mapping[str, Any]
NAMED: Final = "listeners by name: programs of tc may not put sockets into maps here"


@dataclass(frozen=True, slots=True)
class Finding:
    """`part` is "control", "n1/ztunnel", ...; `healthy` None means there was no way to know."""

    part: str
    healthy: bool | None
    detail: str


def syncs_of(reach: Reach) -> list[Json]:
    """`/sync` of every replica of the control plane; raises Unavailable, InvalidInput."""
    return [read_json(answer, "control plane") for answer in reach.controls("/sync")]


def control(reach: Reach) -> Finding:
    """Healthy while one replica is ready: any of them serves."""
    try:
        answers = reach.controls("/ready")
    except MeshError as error:
        return Finding("control", False, error.why)
    waiting = [answer.text for answer in answers if answer.status != 200]
    if len(answers) == 1:
        return Finding("control", not waiting, waiting[0] if waiting else "ready")
    detail = f"{len(answers) - len(waiting)} of {len(answers)} ready"
    return Finding("control", len(waiting) < len(answers), "; ".join([detail, *waiting]))


def ztunnel(reach: Reach, node: str) -> Finding:
    try:
        answer = reach.ztunnel(node, "/healthz/ready", READY_PORT)
    except MeshError as error:
        return Finding(f"{node}/ztunnel", False, error.why)
    return Finding(f"{node}/ztunnel", answer.status == 200, answer.text or "ready")


def agent(reach: Reach, node: str) -> Finding:
    try:
        answer = reach.agent(node, "/ready")
    except MeshError as error:
        return Finding(f"{node}/agent", False, error.why)
    return Finding(f"{node}/agent", answer.status == 200, "ready" if answer.status == 200 else _why(answer))


def strangers(reach: Reach, node: str) -> Finding | None:
    """Whether programs of others see the pods' packets before ours do; None where the agent does not tell."""
    try:
        answer = reach.agent(node, "/strangers")
        by_pod = read_json(answer, f"agent of node {node}") if answer.status == HTTPStatus.OK else None
    except MeshError:
        return None
    if by_pod is None:
        return None
    said = [(pod, one) for pod, found in by_pod.items() for one in found]
    first = [f"{pod}: {one['what']}" for pod, one in said if one["first"]]
    detail = f"before ours: {'; '.join(first)}" if first else f"{len(said)} beside ours" if said else "ours alone"
    return Finding(f"{node}/programs", not first, detail)


def datapath(reach: Reach, node: str) -> Finding | None:
    """How pods are captured there; None where the agent does not tell."""
    try:
        answer = reach.agent(node, "/datapath")
        told = read_json(answer, f"agent of node {node}") if answer.status == HTTPStatus.OK else None
    except MeshError:
        return None
    if told is None:
        return None
    programs = f"{told['version']} by {told['loader']}" if told["loader"] else told.get("lacks", "")
    named = NAMED if told.get("listeners") == "named" else ""
    said = (f"{told['via']}: {told['why']}", programs, named)
    return Finding(f"{node}/datapath", True, "; ".join(one for one in said if one))


def _why(answer: Answer) -> str:
    """The `why` of an agent's JSON answer, else its text."""
    try:
        return str(json.loads(answer.body)["why"])
    except (ValueError, KeyError, TypeError):
        return answer.text


def synced(syncs: Sequence[Json] | None, node: str) -> Finding:
    """Whether both clients of a node have acknowledged the newest revision of their replica and refused nothing."""
    part = f"{node}/sync"
    if syncs is None:
        return Finding(part, None, "the control plane does not answer")
    clients: dict[str, tuple[int, Json]] = {}
    for sync in syncs:
        newest = sync.get("observed", 0)
        for name, state in (sync.get("clients") or {}).items():
            if name.partition("/")[0] == node:
                clients[name] = newest, state
    if not clients:
        return Finding(part, False, "not connected to the control plane")
    for name, (newest, state) in sorted(clients.items()):
        if state.get("nack"):
            return Finding(part, False, f"{name} refused {state['nack']}")
        if state.get("acked", -1) < newest:
            return Finding(part, False, f"{name} is at {state.get('acked')} of {newest}")
    return Finding(part, True, f"revision {max(newest for newest, _ in clients.values())}")


def certificates(dump: Dump) -> Finding:
    """Whether every identity of the node has its certificate."""
    part = f"{dump.node}/certificates"
    entries = dump.entries("certificates")
    for entry in entries:
        if entry.get("state") != "Available":
            return Finding(part, False, f"{entry.get('identity')}: {entry.get('state')}")
    return Finding(part, True, f"{len(entries)} available")


def pods(dump: Dump) -> Finding:
    """Whether ztunnel serves every pod it was given."""
    part = f"{dump.node}/pods"
    pending = [
        f"{(state.get('info') or {}).get('namespace')}/{(state.get('info') or {}).get('name')}"
        for state in dump.states.values()
        if state.get("state") != "Up"
    ]
    return Finding(part, not pending, f"pending: {', '.join(pending)}" if pending else f"{len(dump.states)} up")


def waypoints(syncs: Sequence[Json]) -> Iterator[Finding]:
    """One for each waypoint and gateway: its proxies, over all replicas of the control plane, and what is wrong with
    them."""
    names = sorted({name for sync in syncs for name in sync.get("waypoints", {})})
    for name in names:
        parts = [sync["waypoints"][name] for sync in syncs if name in sync.get("waypoints", {})]
        proxies = sum(int(part["proxies"]) for part in parts)
        refused = {resource: why for part in parts for resource, why in part["refused"].items()}
        state = "up to date" if all(part["settled"] for part in parts) else "BEHIND"
        ingress = any(part.get("ingress") for part in parts)
        if not proxies:
            state = "NO PROXY: nobody gets in" if ingress else "NO PROXY: its services refuse"
        if refused:
            state += "; REFUSES " + "; ".join(f"{resource}: {why}" for resource, why in sorted(refused.items()))
        if closed := sorted({name for part in parts for name in part.get("closed", ())}):
            state += f"; CLOSED: {', '.join(closed)}"
        detail = f"{proxies} prox{'y' if proxies == 1 else 'ies'}, {state}"
        yield Finding(f"{'gateway' if ingress else 'waypoint'} {name}", bool(proxies) and not refused, detail)


def examine(reach: Reach) -> Iterator[Finding]:
    """Every part of the mesh."""
    syncs = None
    yield control(reach)
    try:
        syncs = syncs_of(reach)
    except MeshError as error:
        yield Finding("control/sync", False, str(error))
    yield from waypoints(syncs or ())
    for node in reach.nodes():
        yield agent(reach, node)
        programs = strangers(reach, node)
        yield from (one for one in (programs, datapath(reach, node)) if one is not None)
        yield ztunnel(reach, node)
        yield synced(syncs, node)
        try:
            dump = dump_of(reach, node)
        except MeshError as error:
            yield Finding(f"{node}/dump", False, str(error))
            continue
        yield pods(dump)
        yield certificates(dump)
