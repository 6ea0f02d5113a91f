"""A server certificate that somebody else keeps in files (tls.crt, tls.key: a Secret of cert-manager, say)."""

from __future__ import annotations

from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from ambient.control.issuers import Serving
from ambient.errors import InvalidInput, Unavailable


class ServingFiles:
    """The folder; it is read anew each time."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def serving(self) -> Serving:
        """Raises Unavailable or InvalidInput naming the file."""
        chain, key = self._read("tls.crt"), self._read("tls.key")
        try:
            leaf = x509.load_pem_x509_certificates(chain)[0]
        except ValueError as error:
            raise InvalidInput("server certificate", str(self._folder / "tls.crt"), str(error)) from None
        try:
            fits = load_pem_private_key(key, password=None).public_key() == leaf.public_key()
        except (ValueError, TypeError):
            fits = False
        if not fits:
            raise InvalidInput("server certificate", str(self._folder / "tls.key"), "is not the key of tls.crt")
        begin, end = leaf.not_valid_before_utc, leaf.not_valid_after_utc
        return Serving(chain.decode(), key.decode(), leaf.serial_number, begin, end)

    def _read(self, name: str) -> bytes:
        try:
            return (self._folder / name).read_bytes()
        except OSError as error:
            raise Unavailable("server certificate", str(self._folder / name), error.strerror or str(error)) from None
