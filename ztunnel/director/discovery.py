"""Discovery as this node has it: a Mesh fed by xDS, started from and saved to disk.

Applies batches, tells one listener what changed, and saves behind a debounce. The control plane may be gone for as
long as it likes; what is known stays.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from ambient.errors import MeshError
from ambient.model.mesh import Changes, Mesh
from ambient.xds.channel import ServerSettings
from ambient.xds.client import Batch, DeltaClient
from ambient.xds.codec import Record
from ambient.xds.messages import NodeInfo
from ambient.xds.subscribe import StreamState, subscribe
from ztunnel.director.snapshot import SnapshotFile

DEBOUNCE_S: Final = 2.0
_log = logging.getLogger("discovery")


class Discovery:
    """`on_change` is called after each batch that changed something (and once after a start from disk)."""

    def __init__(
        self,
        node: NodeInfo,
        server: ServerSettings,
        file: SnapshotFile,
        *,
        on_change: Callable[[Changes], None],
        on_state: Callable[[StreamState], None],
        on_message: Callable[[str, int], None],
        on_save_failed: Callable[[], None],
        debounce_s: float = DEBOUNCE_S,
    ) -> None:
        self.mesh = Mesh()
        self._node = node
        self._server = server
        self._file = file
        self._on_change = on_change
        self._on_state = on_state
        self._on_message = on_message
        self._on_save_failed = on_save_failed
        self._debounce_s = debounce_s
        self._core = DeltaClient(node)
        self._restored = False
        self._told = False
        self._dirty = asyncio.Event()

    @property
    def settled(self) -> bool:
        """Something has been told, by the control plane or by the disk: absence means something now."""
        return self._restored or self._core.complete

    def restore(self) -> None:
        """Begin with what is on disk, if it is any good."""
        try:
            snapshot = self._file.load()
        except MeshError as error:
            _log.warning("%s", error)
            return
        if snapshot is not None:
            self._core = DeltaClient(self._node, versions=snapshot.versions)
            self._restored = True
            self._on_change(self.mesh.apply(snapshot.records))
            _log.info("started from %d resources on disk", len(snapshot.records))

    async def run(self) -> None:
        """Subscribe and save, for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(subscribe(self._server, self._node, self.apply, self._on_state, core=self._core))
            group.create_task(self._save())

    def save_now(self) -> None:
        """Write what is known if something changed since the last time (at shutdown)."""
        if self._dirty.is_set() and self._core.complete:
            self._write(list(self._records()), self._core.versions())

    def apply(self, batch: Batch) -> None:
        """Take what one response says."""
        self._on_message(batch.type_url, batch.octets)
        for name, why in batch.refused.items():
            _log.warning("refused %s: %s", name, why)
        changes = self.mesh.apply(batch.put, batch.gone)
        # The batch that completes the first picture counts as a change even when it is empty.
        completed, self._told = self.settled and not self._told, self.settled
        if changes or completed:
            self._dirty.set()
            self._on_change(changes)

    def _records(self) -> Iterable[Record]:
        yield from self.mesh.workloads()
        yield from self.mesh.services()
        yield from self.mesh.policies()

    async def _save(self) -> None:
        while True:
            await self._dirty.wait()
            await asyncio.sleep(self._debounce_s)
            if not self._core.complete:
                # Half of a first answer must not replace a whole older picture.
                continue
            self._dirty.clear()
            # The values are immutable: another thread can encode them while this one goes on.
            await asyncio.to_thread(self._write, list(self._records()), self._core.versions())

    def _write(self, records: list[Record], versions: dict[str, dict[str, str]]) -> None:
        try:
            self._file.save(records, versions)
        except MeshError as error:
            _log.warning("%s", error)
            self._on_save_failed()


def server_settings(address: str, root: str, token: str, hostname: str, cluster: str) -> ServerSettings:
    """Settings of a control plane at `https://host:port`."""
    return ServerSettings(
        target=address.partition("://")[2],
        root=Path(root),
        token=Path(token) if token else None,
        hostname=hostname,
        cluster=cluster,
    )
