"""Certificate revocation lists out of a file (interop 1.2): read, checked, and told to the workers when they change.

The file is PEM with one or more lists. A list of an issuer that we know must bear its signature. A file that cannot be
used changes nothing: what was revoked stays so. That a file has gone does not undo a revocation either.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from ambient.errors import InvalidInput, MeshError, Unavailable
from ambient.xds.channel import root_changed
from ztunnel.tls.revocation import revocation_key

_BLOCK = re.compile(rb"-----BEGIN X509 CRL-----.*?-----END X509 CRL-----", re.DOTALL)
_log = logging.getLogger("certificates")

Keys = tuple[bytes, ...]


def read_lists(pem: bytes, authorities: Iterable[x509.Certificate], now: float) -> Keys:
    """Everything that the lists in `pem` revoke. Raises InvalidInput when one of them cannot be read or believed.

    A list past its next update still counts: what is revoked does not become good again by itself.
    """
    blocks = _BLOCK.findall(pem)
    if not blocks:
        raise InvalidInput("revocation lists", why="there is no list in it")
    issuers = {one.subject.public_bytes(): one.public_key() for one in authorities}
    keys: dict[bytes, None] = {}
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
            _log.warning("revocation list %d is of an authority that we do not know: it is believed unchecked", number)
        if crl.next_update_utc is not None and crl.next_update_utc.timestamp() < now:
            _log.warning("revocation list %d should have been replaced by %s", number, crl.next_update_utc)
        keys.update((revocation_key(serial, issuer), None) for serial in entries)
    return tuple(keys)


class RevocationLists:
    """The file at CRL_PATH. `authorities` are the certificates that may have signed lists; `changed` is called with all
    that is revoked, whenever that is something else than before."""

    def __init__(
        self,
        path: str,
        authorities: Callable[[], Iterable[x509.Certificate]],
        changed: Callable[[Keys], None],
        *,
        look_s: float = 2.0,
    ) -> None:
        self._path = Path(path)
        self._authorities = authorities
        self._changed = changed
        self._look_s = look_s
        self.keys: Keys = ()

    def load(self) -> None:
        """Read the file now; what is wrong with it is said in the log."""
        try:
            try:
                data = self._path.read_bytes()
            except OSError as error:
                raise Unavailable("revocation lists", str(self._path), error.strerror or str(error)) from None
            keys = read_lists(data, self._authorities(), time.time())
        except MeshError as error:
            _log.error("%s; %d certificates stay revoked", error, len(self.keys))
            return
        if keys != self.keys:
            self.keys = keys
            _log.info("%d certificates are revoked", len(keys))
            self._changed(keys)

    async def run(self) -> None:
        """Follow the file, for ever."""
        while True:
            await root_changed(self._path, self._look_s)
            self.load()
