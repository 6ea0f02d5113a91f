"""Answers the CNI plugin: may this pod start now? A pod of the mesh may when it is captured, so from its first packet.

Decides by what the agent knows, and asks the API server itself before it lets a pod go by as not of the mesh: a label
that was set just before the pod was made must not come too late. In doubt a pod is held: the kubelet tries again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import struct
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

from ambient.agent.cni_request import (
    FIELDS,
    LARGEST_FIELD,
    MAGIC,
    NOT_AS_IT_SHOULD_BE,
    PASS,
    TRY_AGAIN_LATER,
    Answer,
    PodName,
    Request,
    encode_answer,
    parse_request,
)
from ambient.agent.converge import State, Tracked
from ambient.agent.enrol import NotEnrolled, PodTarget
from ambient.agent.locate import below
from ambient.agent.sandboxes import Sandbox, Sandboxes
from ambient.errors import InvalidInput, MeshError, ProtocolError, Refused, Unavailable
from ambient.model.address import IpAddress

READ_S: Final = 10.0
MARGIN_S: Final = 1.0
"""The answer is given this much before the plugin stops waiting."""
FRESH_S: Final = 3.0
"""How long the API server is waited for where what is known would do."""
_LEAVING_S: Final = 4.0
_UNSURE: Final = frozenset({NotEnrolled.NOT_LABELLED, NotEnrolled.UNREADABLE})
"""Verdicts that a change on its way to us could turn."""

log = logging.getLogger("ambient.agent.cni")

Verdict = PodTarget | NotEnrolled


@dataclass(frozen=True, slots=True)
class Judged:
    """What becomes of the pod with this uid of the API."""

    uid: str
    verdict: Verdict


class Node(Protocol):
    """The agent, as seen from here."""

    async def ready(self) -> None:
        """Return when the node's objects were read."""

    def judge(self, pod: PodName, addresses: tuple[IpAddress, ...]) -> Judged | None:
        """By what is known; None for a pod that is not known (any more, or under this uid)."""

    async def judge_afresh(self, pod: PodName, addresses: tuple[IpAddress, ...]) -> Judged | None:
        """By what the API server has now. Raises MeshError."""

    def plan(self) -> None:
        """Act on changed sandboxes."""

    def tracked(self, uid: str) -> Tracked | None: ...

    async def moved(self) -> None:
        """Return after objects, or the state of a pod, have changed."""

    def why(self, uid: str) -> str:
        """What a pod on its way into the mesh waits for."""

    def served(self, uid: str) -> bool:
        """Whether an enrolled pod has what its connections take: nothing is won by a pod that starts without."""

    def netns_of(self, uid: str) -> tuple[int, int] | None:
        """Device and inode of the namespace in which the pod is enrolled."""


class PodStarts:
    """`passing` are the namespaces whose pods are never held. `told` counts answers ("ADD held")."""

    def __init__(
        self, node: Node, sandboxes: Sandboxes, passing: frozenset[str], root: Path, told: Counter[str] | None = None
    ) -> None:
        self._node = node
        self._sandboxes = sandboxes
        self._passing = passing
        self._root = root
        self.told = Counter() if told is None else told

    async def answer(self, request: Request) -> Answer:
        """Never raises MeshError: what goes wrong is in the answer."""
        answer = PASS
        if request.pod is not None and request.pod.namespace not in self._passing:
            match request.command:
                case "ADD":
                    answer = await self._add(request, request.pod)
                case "CHECK":
                    answer = self._check(request, request.pod)
        if request.pod is not None and request.command == "DEL":
            await self._del(request, request.pod)
        self.told[f"{request.command} {'held' if answer.code else 'passed'}"] += 1
        return answer

    # --- ADD

    async def _add(self, request: Request, pod: PodName) -> Answer:
        uid = ""
        try:
            async with asyncio.timeout(max(request.timeout_s - MARGIN_S, 0.5)):
                await self._node.ready()
                judged = await self._judge(request, pod)
                if isinstance(judged.verdict, NotEnrolled):
                    log.debug("pod %s: starts outside the mesh: %s", pod, judged.verdict)
                    return PASS
                uid = judged.uid
                await self._let_go_of_another(request, uid)
                self._sandboxes.put(uid, Sandbox(request.container, request.netns, request.addresses))
                self._node.plan()
                await self._captured(request, pod, uid)
                return PASS
        except TimeoutError:
            why = self._node.why(uid) if uid else "the agent does not know the node's pods and namespaces yet"
        except MeshError as error:
            why = str(error)
        if uid and (sandbox := self._sandboxes.get(uid)) is not None and sandbox.container == request.container:
            self._sandboxes.end(uid)
            self._node.plan()
        log.warning("pod %s: is held back: %s", pod, why)
        return Answer(TRY_AGAIN_LATER, f"pod {pod} belongs to the mesh, or may, and cannot be captured now: {why}")

    async def _judge(self, request: Request, pod: PodName) -> Judged:
        """Raises MeshError when the pod has to be held."""
        judged = self._node.judge(pod, request.addresses)
        # Without a uid what is known may be of the pod that had this name before.
        nameless = judged is not None and not pod.uid and isinstance(judged.verdict, NotEnrolled)
        if judged is None or nameless or judged.verdict in _UNSURE:
            try:
                async with asyncio.timeout(None if judged is None else FRESH_S):
                    afresh = await self._node.judge_afresh(pod, request.addresses)
            except (Unavailable, TimeoutError):
                if judged is None or judged.verdict is NotEnrolled.UNREADABLE:
                    raise
                afresh = judged
            if afresh is None:
                raise Refused("pod", str(pod), "the API server has no such pod (any more)")
            judged = await self._catch_up(request, pod, afresh)
        if isinstance(judged.verdict, PodTarget) and not request.addresses:
            raise Refused("pod addresses", str(pod), f"the plugins before us gave {request.interface} none")
        if judged.verdict in (NotEnrolled.UNREADABLE, NotEnrolled.NO_ADDRESS):
            raise Refused("pod", str(pod), judged.verdict.value)
        return judged

    async def _catch_up(self, request: Request, pod: PodName, afresh: Judged) -> Judged:
        """Wait until our own view of a pod that belongs in is as new as the API server's."""
        if isinstance(afresh.verdict, NotEnrolled):
            return afresh
        while True:
            judged = self._node.judge(pod, request.addresses)
            if judged is not None and judged.uid == afresh.uid and isinstance(judged.verdict, PodTarget):
                return judged
            await self._node.moved()

    async def _let_go_of_another(self, request: Request, uid: str) -> None:
        """The pod is still held in a sandbox of which nobody told us that it went."""
        if self._node.netns_of(uid) is not None and not self._is_in(request, uid):
            self._sandboxes.end(uid)
            self._node.plan()
            while self._node.tracked(uid) is not None:
                await self._node.moved()

    def _is_in(self, request: Request, uid: str) -> bool:
        """Whether the namespace that the pod is held in is the one of this request."""
        try:
            found = os.stat(below(self._root, request.netns))
        except OSError:
            return False
        return self._node.netns_of(uid) == (found.st_dev, found.st_ino)

    async def _captured(self, request: Request, pod: PodName, uid: str) -> None:
        while True:
            tracked = self._node.tracked(uid)
            captured = tracked is not None and tracked.state is State.ENROLLED and self._is_in(request, uid)
            if captured and self._node.served(uid):
                return
            sandbox = self._sandboxes.get(uid)
            if sandbox is None or sandbox.container != request.container:
                raise Refused("pod", str(pod), "its sandbox was taken down meanwhile")
            judged = self._node.judge(pod, request.addresses)
            if judged is not None and isinstance(judged.verdict, NotEnrolled):
                return
            await self._node.moved()

    # --- CHECK, DEL

    def _check(self, request: Request, pod: PodName) -> Answer:
        judged = self._node.judge(pod, request.addresses)
        if judged is None or isinstance(judged.verdict, NotEnrolled):
            return PASS
        tracked = self._node.tracked(judged.uid)
        if tracked is not None and tracked.state is State.ENROLLED:
            return PASS
        why = self._node.why(judged.uid)
        return Answer(NOT_AS_IT_SHOULD_BE, f"pod {pod} belongs to the mesh and is not in it: {why}")

    async def _del(self, request: Request, pod: PodName) -> None:
        """Let go of a pod whose sandbox goes. Runtimes clean up old sandboxes of living pods, again and again."""
        judged = self._node.judge(pod, ())
        uid = judged.uid if judged is not None else pod.uid
        if not uid or not self._is_current(request, uid):
            return
        self._sandboxes.end(uid)
        self._node.plan()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_LEAVING_S):
                while self._node.tracked(uid) is not None:
                    await self._node.moved()

    def _is_current(self, request: Request, uid: str) -> bool:
        sandbox = self._sandboxes.get(uid)
        if sandbox is not None:
            return sandbox.container == request.container
        return bool(request.netns) and self._is_in(request, uid)


async def serve(starts: PodStarts, path: Path) -> None:
    """Listen for the plugin until cancelled; only root may ask."""

    async def one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            _only_root(writer.get_extra_info("socket"))
            async with asyncio.timeout(READ_S):
                fields = await _read(reader)
            writer.write(encode_answer(await _answered(starts, fields)))
            async with asyncio.timeout(READ_S):
                await writer.drain()
        except (MeshError, OSError, TimeoutError, asyncio.IncompleteReadError) as error:
            log.warning("CNI plugin: %s", error or type(error).__name__)
        finally:
            writer.close()

    server = await asyncio.start_unix_server(one, sock=_listening(path), limit=1 << 16, backlog=512)
    async with server:
        await server.serve_forever()


def _listening(path: Path) -> socket.socket:
    """The old socket's name is taken over in one step, so that a plugin finds one or the other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    sock.bind(str(new))
    os.chmod(new, 0o600)
    sock.listen(512)
    os.replace(new, path)
    return sock


async def _answered(starts: PodStarts, fields: tuple[bytes, ...]) -> Answer:
    try:
        return await starts.answer(parse_request(fields))
    except InvalidInput as error:
        log.warning("CNI plugin: %s", error)
        return Answer(TRY_AGAIN_LATER, str(error))


async def _read(reader: asyncio.StreamReader) -> tuple[bytes, ...]:
    if await reader.readexactly(len(MAGIC)) != MAGIC:
        raise ProtocolError("CNI plugin", "frame", "does not begin as it should")
    fields = []
    for _ in range(FIELDS):
        (length,) = struct.unpack("!I", await reader.readexactly(4))
        if length > LARGEST_FIELD:
            raise ProtocolError("CNI plugin", "frame", f"a field of {length} octets")
        fields.append(await reader.readexactly(length))
    return tuple(fields)


def _only_root(connection: socket.socket) -> None:
    pid, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    if uid != os.getuid():
        raise ProtocolError("CNI plugin", f"pid {pid}", f"user {uid} may not ask")
