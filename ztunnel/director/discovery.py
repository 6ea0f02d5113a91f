"""Discovery as this node has it: a Mesh fed by xDS (or a local file), started from and saved to disk.

Applies batches, tells one listener what changed, and saves behind a debounce that grows with the size of the mesh. The
control plane may be gone for as long as it likes; what is known stays. However much there is, it is read, applied and
saved in steps of a millisecond or two: everything else of the director goes on in between.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from ambient.errors import MeshError
from ambient.model.mesh import Changes, Kind, Mesh
from ambient.xds.channel import SYSTEM_ROOTS, ServerSettings
from ambient.xds.client import Batch, DeltaClient, doubtful, lacks
from ambient.xds.codec import Record
from ambient.xds.messages import NodeInfo
from ambient.xds.pace import WithoutCollection, between_others
from ambient.xds.subscribe import LARGE, OnMessage, StreamState, subscribe
from ztunnel.director.snapshot import SnapshotFile

DEBOUNCE_S: Final = 2.0
SAVING_SHARE: Final = 30
"""At most one part in so many of the time is spent on writing. Waiting for a slow disk does not count: it hurts nobody,
and what is not on disk yet a ztunnel that starts without a control plane does not know."""
SAVE_PAUSE_S: Final = 0.001
SLICE: Final = 200
"""Resources applied in one go: about two milliseconds."""
ABSENCE_S: Final = 5.0
"""How long at least (twice that at most) "there is no such thing" holds with on-demand discovery."""
_log = logging.getLogger("discovery")


class Discovery:
    """`on_change` is called after each slice of a batch that changed something, once after a start from disk, and with
    on-demand discovery when something asked for was answered. `more`: the batch goes on, call for what cannot wait.
    `core` is the state of the subscription."""

    def __init__(
        self,
        node: NodeInfo,
        server: ServerSettings | None,
        file: SnapshotFile,
        *,
        on_change: Callable[[Changes, bool], None],
        on_state: Callable[[StreamState], None],
        on_message: OnMessage,
        on_save_failed: Callable[[], None],
        on_demand: bool = False,
        lax: bool = False,
        local: Callable[[], Iterable[Record]] | None = None,
        debounce_s: float = DEBOUNCE_S,
    ) -> None:
        """`lax`: of what cannot be understood, do as Istio's ztunnel does (see `ambient.xds.client`).

        `local`: the records of a file that is all there is to know (`server` None then); raises InvalidInput."""
        self.mesh = Mesh()
        self._node = node
        self._server = server
        self._file = file
        self._on_change = on_change
        self._on_state = on_state
        self._on_message = on_message
        self._on_save_failed = on_save_failed
        self._on_demand = on_demand
        self._lax = lax
        self._local = local
        self._debounce_s = debounce_s
        self.core = self._client()
        self._restored = False
        self._told = False
        self._applying = False
        self._dirty = asyncio.Event()
        self._saving = asyncio.Lock()
        self._behind = False
        """The disk does not have all that is known."""

    @property
    def settled(self) -> bool:
        """Everything has been told once, by the control plane or by the disk: absence means something now."""
        return self._restored or self._told

    async def restore(self) -> None:
        """Begin with the local file or what is on disk, if it is any good. Raises InvalidInput for a local file."""
        if self._local is not None:
            self._begin(list(self._local()), "the local file")
            return
        try:
            with WithoutCollection():
                snapshot = await between_others(self._file.loading())
                if snapshot is not None:
                    self.core = self._client(snapshot.versions)
                    await between_others(self._put(snapshot.records, ()))
        except MeshError as error:
            _log.warning("%s", error)
            return
        if snapshot is not None:
            self._begin((), f"disk: {len(snapshot.records)} resources")

    def _begin(self, records: Iterable[Record], source: str) -> None:
        self._restored = True
        self._on_change(self.mesh.apply(records), False)
        _log.info("started from %s", source)

    def _client(self, versions: Mapping[str, Mapping[str, str]] | None = None) -> DeltaClient:
        core = DeltaClient(self._node, versions=versions, on_demand=self._on_demand, lax=self._lax)
        core.on_decided = self._decided
        return core

    async def run(self) -> None:
        """Subscribe and save, for ever."""
        if self._server is None:
            await asyncio.get_running_loop().create_future()
            return
        async with asyncio.TaskGroup() as group:
            group.create_task(
                subscribe(
                    self._server,
                    self._node,
                    self.apply,
                    self._on_state,
                    core=self.core,
                    on_message=self._on_message,
                )
            )
            group.create_task(self._save_often())
            if self._on_demand:
                group.create_task(self._age_often())

    @property
    def not_understood(self) -> int:
        """How many resources were refused and have no good version: nothing is sent there, or all is denied."""
        return self.core.stand_ins

    # --- on demand

    def lacks(self, names: Iterable[str], asker: str = "") -> bool:
        """Some of these (in the form of `Changes.names`) are not known and may come: they have been asked for, and
        `on_change` is called when they are answered. False where everything is told without asking. `asker`: a pod."""
        return lacks(self.core, self.mesh, names, asker)

    def _decided(self) -> None:
        self._on_change(Changes(), False)

    async def _age_often(self) -> None:
        while True:
            await asyncio.sleep(ABSENCE_S)
            self.age()

    def age(self) -> None:
        """What was missing when it was asked for may be there by now, and not every control plane would tell: after
        the second call nobody may rely on its absence any more."""
        missing = self.core.age()
        if missing:
            self._on_change(Changes(names=doubtful(missing)), False)

    # --- batches

    def apply(self, batch: Batch) -> Awaitable[None] | None:
        """Take what one response says: at once, or for a large one when what is returned has been awaited."""
        for name, why in batch.refused.items():
            _log.warning("refused %s: %s", name, why)
        if len(batch.put) + len(batch.gone) > LARGE:
            return self._apply_large(batch)
        self._applied(self.mesh.apply(batch.put, batch.gone))
        return None

    async def _apply_large(self, batch: Batch) -> None:
        self._applying = True
        try:
            with WithoutCollection():
                await between_others(self._put(batch.put, batch.gone))
        finally:
            self._applying = False
        self._applied(Changes(), told=True)

    def _applied(self, changes: Changes, *, told: bool = False) -> None:
        """`told`: of the changes themselves the listener has heard already."""
        # The batch that completes the first picture counts as a change even when it is empty.
        completed = self.core.complete and not self._told
        self._told = self.core.complete
        if changes or completed or told:
            self._behind = True
            self._dirty.set()
            self._on_change(changes, False)

    def _put(self, put: Sequence[Record], gone: Sequence[tuple[Kind, str]]) -> Generator[None, None, None]:
        """Apply in slices: what is there first, so that no address is nobody's in between."""
        for begin in range(0, len(put), SLICE):
            self._tell(self.mesh.apply(put[begin : begin + SLICE]))
            yield
        for begin in range(0, len(gone), SLICE):
            self._tell(self.mesh.apply((), gone[begin : begin + SLICE]))
            yield

    def _tell(self, changes: Changes) -> None:
        if changes and self.settled:
            self._on_change(changes, True)

    def _records(self) -> Iterable[Record]:
        yield from self.mesh.workloads()
        yield from self.mesh.services()
        yield from self.mesh.policies()

    # --- saving

    async def _save_often(self) -> None:
        rest = self._debounce_s
        while True:
            await self._dirty.wait()
            await asyncio.sleep(rest)
            if self._whole:
                rest = max(self._debounce_s, SAVING_SHARE * await self.save())

    @property
    def _whole(self) -> bool:
        """Half of an answer must not replace a whole older picture on disk."""
        return self.core.complete and not self._applying

    async def save(self) -> float:
        """Write what is known, if the disk does not have it; returns how many seconds the writing took."""
        async with self._saving:
            if not self._behind or not self._whole:
                return 0.0
            self._dirty.clear()
            self._behind = saved = False
            loop = asyncio.get_running_loop()
            begun = loop.time()
            # Taken in one go, so that records and versions agree; the values are immutable.
            records, versions = list(self._records()), self.core.versions()
            try:
                await between_others(self._file.writing(records, versions), pause_s=SAVE_PAUSE_S)
                spent = loop.time() - begun
                await asyncio.to_thread(self._file.commit)
                saved = True
            except MeshError as error:
                spent = loop.time() - begun
                self._not_saved(error)
            finally:
                self._behind = self._behind or not saved
            return spent

    def _not_saved(self, error: MeshError) -> None:
        _log.warning("%s", error)
        self._on_save_failed()


def server_settings(
    address: str, root: str, token: str, hostname: str, cluster: str, headers: tuple[tuple[str, str], ...] = ()
) -> ServerSettings:
    """Settings of a control plane at `https://host:port` (or `http://`, for debugging).

    `root`: a file, PEM, or SYSTEM. `token`: a file, or the token itself where that cannot be a path ("" none).
    """
    scheme, _, target = address.partition("://")
    literal_root = root == SYSTEM_ROOTS or "-----BEGIN" in root
    literal_token = token.count(".") == 2 and "/" not in token and not Path(token).exists()
    return ServerSettings(
        target=target,
        root=root if literal_root else Path(root),
        token=(token if literal_token else Path(token)) if token else None,
        hostname=hostname,
        cluster=cluster,
        headers=headers,
        plaintext=scheme == "http",
    )
