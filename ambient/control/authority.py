"""The CA folder as it is now: loads the authority, notices when its files change, makes a root when there is none."""

from __future__ import annotations

import logging
import os
from datetime import UTC, datetime
from pathlib import Path

from ambient.ca.roots import FILES, Authority, load_authority, make_root
from ambient.errors import InvalidInput, Unavailable

_log = logging.getLogger("ambient.control.authority")


class CaFolder:
    """`authority` is the last good one; it raises InvalidInput at construction when there never was one."""

    def __init__(self, folder: Path, *, trust_domain: str, create: bool) -> None:
        self._folder = folder
        if create and folder.is_dir() and not any((folder / name).exists() for name in FILES):
            self._create(trust_domain)
        self._seen = self._signature()
        self.authority: Authority = load_authority(self._read(), datetime.now(UTC))

    def refresh(self) -> bool:
        """Load again when files changed; True when the authority is another one. What is invalid is only logged."""
        signature = self._signature()
        if signature == self._seen:
            return False
        self._seen = signature
        try:
            authority = load_authority(self._read(), datetime.now(UTC))
        except (InvalidInput, Unavailable) as error:
            _log.error("CA folder changed and is not usable, going on with the old authority: %s", error)
            return False
        changed = (authority.roots, authority.certificate) != (self.authority.roots, self.authority.certificate)
        self.authority = authority
        return changed

    def _create(self, trust_domain: str) -> None:
        certificate, key = make_root(datetime.now(UTC), trust_domain)
        # The key first: a certificate without its key would be refused for ever.
        for name, content, mode in (("root-key.pem", key, 0o600), ("root-cert.pem", certificate, 0o644)):
            descriptor = os.open(self._folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            with os.fdopen(descriptor, "w") as file:
                file.write(content)
        _log.warning("made a new self-signed root in %s", self._folder)

    def _read(self) -> dict[str, bytes]:
        try:
            return {name: (self._folder / name).read_bytes() for name in FILES if (self._folder / name).exists()}
        except OSError as error:
            raise Unavailable("CA folder", str(self._folder), error.strerror or str(error)) from None

    def _signature(self) -> tuple[tuple[int, int, int], ...]:
        found = []
        for name in FILES:
            try:
                stat = (self._folder / name).stat()
            except OSError:
                found.append((0, 0, 0))
            else:
                found.append((stat.st_mtime_ns, stat.st_size, stat.st_ino))
        return tuple(found)
