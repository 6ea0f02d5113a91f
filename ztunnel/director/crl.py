"""Certificate revocation lists out of a file (interop 1.2): read, checked, and told to the workers when they change.

The file is PEM with one or more lists. A list of an issuer that we know must bear its signature; one that was read when
its issuer was not known yet is looked at again when it is. A file that cannot be used changes nothing: what was revoked
stays so, over a restart too, by the copy that is kept of the last good one. That a file has gone does not undo a
revocation either. Where there is a file and nobody can say what it revokes, no peer is believed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import re
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from ambient.errors import InvalidInput, MeshError, Unavailable
from ambient.xds.channel import root_changed
from ztunnel.config import Config
from ztunnel.tls.revocation import revocation_key

_BLOCK = re.compile(rb"-----BEGIN X509 CRL-----.*?-----END X509 CRL-----", re.DOTALL)
_log = logging.getLogger("certificates")

Keys = tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Lists:
    """What the lists of a file revoke; `checked`: each of them bears the signature of an authority that we know."""

    keys: Keys
    checked: bool


def read_lists(pem: bytes, authorities: Iterable[x509.Certificate], now: float) -> Lists:
    """Everything that the lists in `pem` revoke. Raises InvalidInput when one of them cannot be read or believed.

    A list past its next update still counts: what is revoked does not become good again by itself.
    """
    blocks = _BLOCK.findall(pem)
    if not blocks:
        raise InvalidInput("revocation lists", why="there is no list in it")
    issuers = {one.subject.public_bytes(): one.public_key() for one in authorities}
    keys: dict[bytes, None] = {}
    checked = True
    for number, block in enumerate(blocks, 1):
        try:
            crl = x509.load_pem_x509_crl(block)
            issuer = crl.issuer.public_bytes()
            signed = issuer not in issuers or crl.is_signature_valid(issuers[issuer])  # type: ignore[arg-type]
            entries = [one.serial_number for one in crl]
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise InvalidInput("revocation lists", f"list {number}", str(error)) from None
        if not signed:
            raise InvalidInput("revocation lists", f"list {number}", "is not signed by the authority it is named after")
        if issuer not in issuers:
            checked = False
            _log.warning("revocation list %d is of an authority that we do not know: it is believed unchecked", number)
        if crl.next_update_utc is not None and crl.next_update_utc.timestamp() < now:
            _log.warning("revocation list %d should have been replaced by %s", number, crl.next_update_utc)
        keys.update((revocation_key(serial, issuer), None) for serial in entries)
    return Lists(tuple(keys), checked)


class RevocationLists:
    """The file at CRL_PATH. `authorities` are the certificates that may have signed lists; `changed` is called with all
    that is revoked whenever that is something else than before, and with None when nobody can say what is.

    `kept`: where a copy of the last good file is put, for the time when we start and the file is unusable.
    """

    def __init__(
        self,
        path: str,
        authorities: Callable[[], Iterable[x509.Certificate]],
        changed: Callable[[Keys | None], None],
        *,
        kept: Path | None = None,
        look_s: float = 2.0,
    ) -> None:
        self._path = Path(path)
        self._authorities = authorities
        self._changed = changed
        self._kept = kept
        self._look_s = look_s
        self._checked = False
        self._data = b""
        self._settled = False
        self._blind = False
        self._news = asyncio.Event()
        self.keys: Keys | None = ()

    def load(self) -> None:
        """Read the file now; what is wrong with it is said in the log."""
        authorities = list(self._authorities())
        self._blind = not authorities
        data = b""
        try:
            data = _content(self._path)
            lists = read_lists(data, authorities, time.time())
        except MeshError as error:
            # What was believed before its issuer was known, and proves to be forged, is not what stays in force.
            forged = bool(data) and data == self._data and not self._checked
            if self._settled and not forged:
                _log.error("%s; what was revoked stays so", error)
            else:
                self._without(error, authorities, absent=not forged and not self._path.exists())
            return
        self._data = data
        if lists.checked:
            self._keep(data)
        self._take(lists)

    def authorities_changed(self) -> None:
        """Another certificate is here: lists that could not be checked so far may be checked now."""
        if self._blind:
            self.load()
        elif not self._checked:
            self._news.set()

    async def run(self) -> None:
        """Follow the file, for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow_file())
            group.create_task(self._follow_authorities())

    async def _follow_file(self) -> None:
        while True:
            await root_changed(self._path, self._look_s)
            self.load()

    async def _follow_authorities(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            if not self._checked:
                self.load()
            await asyncio.sleep(self._look_s)

    def _without(self, error: MeshError, authorities: Iterable[x509.Certificate], *, absent: bool) -> None:
        """There is no file that can be used, and none was before: the copy counts, or what is revoked is unknown."""
        copy: Lists | None = None
        if self._kept is not None:
            with suppress(MeshError):
                copy = read_lists(_content(self._kept), authorities, time.time())
        if copy is not None:
            _log.error("%s; the last good one counts", error)
            self._take(copy)
        elif absent:
            _log.warning("%s; nothing is revoked until there is one", error)
            self._settled = True
        else:
            _log.error("%s; what is revoked is not known, so no peer is believed", error)
            self._tell(None)

    def _take(self, lists: Lists) -> None:
        self._checked, self._settled = lists.checked, True
        self._tell(lists.keys)

    def _tell(self, keys: Keys | None) -> None:
        if keys != self.keys:
            self.keys = keys
            if keys is not None:
                _log.info("%d certificates are revoked", len(keys))
            self._changed(keys)

    def _keep(self, data: bytes) -> None:
        if self._kept is None:
            return
        fresh = self._kept.with_suffix(".new")
        try:
            if self._kept.exists() and self._kept.read_bytes() == data:
                return
            fresh.write_bytes(data)
            os.replace(fresh, self._kept)
        except OSError as error:
            _log.warning("no copy of the revocation lists is kept in %s: %s", self._kept, error.strerror)


def revocation_lists(
    config: Config, authorities: Callable[[], Iterable[x509.Certificate]], changed: Callable[[Keys | None], None]
) -> RevocationLists | None:
    """The lists that these settings name; None when they name none."""
    if not config.crl_path:
        return None
    kept = Path(config.state_dir, "revoked.pem") if config.state_dir else None
    return RevocationLists(config.crl_path, authorities, changed, kept=kept)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise Unavailable("revocation lists", str(path), error.strerror or str(error)) from None
