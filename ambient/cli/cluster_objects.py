"""Applying the mesh's objects to a cluster and taking them away again, with waiting and with reasons."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from ambient.cli.manifest import RESOURCES, ROLLED, Object, Piece, progress
from ambient.errors import Refused, Unavailable
from ambient.kube.api.client import ApiClient
from ambient.kube.api.failure import NotThere
from ambient.kube.resource import Resource

MANAGER: Final = "ambient-install"
PODS: Final = Resource("v1", "pods")
_PAUSE_S: Final = 0.5
_IGNORED: Final = frozenset({"managedFields", "resourceVersion", "generation", "uid", "creationTimestamp"})

Say = Callable[[str], None]


async def found(api: ApiClient, piece: Piece) -> Object | None:
    """The object as it is, if it is there."""
    try:
        return await api.get(piece.resource, piece.name, piece.namespace)
    except NotThere:
        return None


async def compare(api: ApiClient, piece: Piece) -> list[str]:
    """The fields that applying it would change ("+" alone for a new object), as the server sees it. Nothing is done."""
    before = await found(api, piece)
    if before is None:
        return ["+"]
    path = piece.resource.path(piece.namespace, piece.name)
    query = {"fieldManager": MANAGER, "force": "true", "dryRun": "All"}
    after = await api.call("PATCH", path, body=piece.content, query=query, content="application/apply-patch+yaml")
    return list(_differences(_stripped(before), _stripped(after), ""))


def _stripped(content: Object) -> Object:
    metadata = {key: value for key, value in content.get("metadata", {}).items() if key not in _IGNORED}
    metadata["annotations"] = {
        key: value for key, value in (metadata.get("annotations") or {}).items() if not key.startswith("deprecated.")
    }
    return {**{key: value for key, value in content.items() if key != "status"}, "metadata": metadata}


def _differences(before: Any, after: Any, path: str) -> Iterable[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key in sorted({*before, *after}):
            yield from _differences(before.get(key), after.get(key), f"{path}.{key}" if path else str(key))
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for number, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from _differences(one, other, f"{path}[{number}]")
    elif before != after:
        yield f"{path}: {_short(before)} -> {_short(after)}"


def _short(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


async def apply(api: ApiClient, pieces: Sequence[Piece], say: Say, patience_s: float) -> None:
    """Server-side apply, in order; a workload is waited for before the next one is touched, so that what cannot start
    leaves the rest as it was.

    Raises Unavailable naming what is not as it is wanted, with what its pods say.
    """
    deadline = time.monotonic() + patience_s
    for piece in pieces:
        before = await found(api, piece)
        after = await api.patch(
            piece.resource, piece.name, piece.content, piece.namespace, form="apply", manager=MANAGER, force=True
        )
        if before is None:
            say(f"made     {piece}")
        elif before["metadata"]["resourceVersion"] != after["metadata"]["resourceVersion"]:
            say(f"changed  {piece}")
        if piece.kind in ROLLED:
            await _rolled_out(api, piece, deadline)
            say(f"ready    {piece}")


async def _rolled_out(api: ApiClient, piece: Piece, deadline: float) -> None:
    while True:
        waits_for = progress(await api.get(piece.resource, piece.name, piece.namespace))
        if not waits_for:
            return
        if time.monotonic() > deadline:
            raise Unavailable(str(piece), waits_for, "; ".join(await troubles(api, piece)) or "its pods say nothing")
        await asyncio.sleep(_PAUSE_S)


async def troubles(api: ApiClient, piece: Piece) -> list[str]:
    """What the pods of a workload say that are not ready."""
    listed = await api.list(PODS, piece.namespace, labels=f"app={piece.name}")
    said = []
    for pod in listed.get("items") or []:
        status = pod.get("status") or {}
        for container in status.get("containerStatuses") or []:
            state = container.get("state") or {}
            waiting, ended = state.get("waiting") or {}, (container.get("lastState") or {}).get("terminated") or {}
            reason = waiting.get("reason") or ("not ready" if not container.get("ready") else "")
            if reason:
                more = waiting.get("message") or (f"ended with {ended['exitCode']} before" if ended else "")
                said.append(f"{pod['metadata']['name']}: {reason}{f' ({more})' if more else ''}")
        if not status.get("containerStatuses"):
            why = [one.get("message", "") for one in status.get("conditions") or [] if one.get("status") == "False"]
            said.append(f"{pod['metadata']['name']}: {status.get('phase', 'unknown')} {' '.join(why)}".strip())
    return said


async def remove(api: ApiClient, pieces: Sequence[Piece], say: Say, patience_s: float, *, in_use: bool) -> None:
    """In the opposite order; workloads first, and their pods are waited for: an agent takes itself off its node when
    its DaemonSet goes, for which it needs what comes after. Raises Unavailable when something does not go.

    `in_use`: agents go before ztunnels, so that the connections of pods that leave the mesh go on meanwhile; else
    after them, and take what a ztunnel leaves on the node along.
    """
    deadline = time.monotonic() + patience_s
    workloads = [piece for piece in reversed(pieces) if piece.kind in ROLLED]
    workloads.sort(key=lambda piece: (piece.name == "ambient-agent") is not in_use)
    for piece in workloads:
        await _delete(api, piece, say)
        await _pods_gone(api, piece, deadline)
    for piece in reversed(pieces):
        if piece.kind not in ROLLED:
            await _delete(api, piece, say)
    for piece in pieces:
        while await found(api, piece) is not None:
            if time.monotonic() > deadline:
                raise Unavailable(str(piece), "is on its way out", "something holds it: look at its finalizers")
            await asyncio.sleep(_PAUSE_S)


async def _delete(api: ApiClient, piece: Piece, say: Say) -> None:
    try:
        await api.delete(piece.resource, piece.name, piece.namespace, propagation="Background")
        say(f"deleted  {piece}")
    except NotThere:
        return


async def _pods_gone(api: ApiClient, piece: Piece, deadline: float) -> None:
    while True:
        listed = await api.list(PODS, piece.namespace, labels=f"app={piece.name}")
        left = [pod["metadata"]["name"] for pod in listed.get("items") or []]
        if not left:
            return
        if time.monotonic() > deadline:
            raise Unavailable(str(piece), "pods are left", ", ".join(left))
        await asyncio.sleep(_PAUSE_S)


async def still_in(api: ApiClient, label: str) -> list[str]:
    """The namespaces and pods that ask to be in the mesh."""
    asking = f"{label}=ambient"
    namespaces = await api.list(RESOURCES["Namespace"], labels=asking)
    pods = await api.list(PODS, labels=asking)
    named = [f"namespace {one['metadata']['name']}" for one in namespaces.get("items") or []]
    return named + [f"pod {one['metadata']['namespace']}/{one['metadata']['name']}" for one in pods.get("items") or []]


async def installed(api: ApiClient, namespace: str) -> str:
    """The image of the control plane that is installed there. Raises Refused when there is none."""
    try:
        deployment = await api.get(RESOURCES["Deployment"], "ambient-control", namespace)
    except NotThere:
        raise Refused("no mesh", f"namespace {namespace}", "`ambient install` installs one") from None
    image: str = deployment["spec"]["template"]["spec"]["containers"][0]["image"]
    return image
