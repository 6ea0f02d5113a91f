"""The file with Istio's MeshConfig, as it is mounted from a ConfigMap: read when it changes.

One that cannot be read changes nothing. If none was ever read, nobody can be asked, and what would have to be asked for
is refused.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Final

from ambient.errors import InvalidInput
from ambient.kube.mesh_config import MeshConfig, read_mesh_config

_LOOK_S: Final = 2.0

_log = logging.getLogger("ambient.control.mesh")


class MeshFile:
    """`look` now and then, or `run`. `changed(config)`: it says something else."""

    def __init__(self, path: Path, *, look_s: float = _LOOK_S) -> None:
        self._path = path
        self._look_s = look_s
        self._text: str | None = None
        self.changed: Callable[[MeshConfig], None] = lambda config: None

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            self.look()
            await asyncio.sleep(self._look_s)

    def look(self) -> None:
        try:
            text = self._path.read_text()
        except (OSError, UnicodeDecodeError) as error:
            text = f"\0{error}"
        if text == self._text:
            return
        before, self._text = self._text, text
        if text.startswith("\0"):
            # That there is none is usual. That there is none any more is not.
            level = logging.INFO if before is None and not self._path.exists() else logging.ERROR
            _log.log(level, "mesh config %s: %s: what was read before holds", self._path, text[1:])
            return
        try:
            config = read_mesh_config(text, str(self._path))
        except InvalidInput as error:
            _log.error("mesh config: %s: what was read before holds", error)
            return
        for one in config.refused:
            _log.error("mesh config %s: %s", self._path, one)
        self.changed(config)
