"""The authorities that this machine's system believes: what proxies verify servers outside of the mesh by.

They are read here and sent to proxies: whether there are any is then known where it can be said, and what is verified
does not depend on what an image of Envoy's happens to hold.
"""

from __future__ import annotations

import logging
import ssl
from pathlib import Path
from typing import Final

_USUAL: Final = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
_BEGIN: Final = "-----BEGIN CERTIFICATE-----"

_log = logging.getLogger("ambient.control")


def system_roots(chosen: Path | None = None) -> str:
    """In PEM, "" when there are none: then nothing is verified by them, and nothing sent. `chosen`: the file to read
    instead; raises OSError when that cannot be read."""
    if chosen is not None:
        return chosen.read_text()
    default = ssl.get_default_verify_paths().cafile
    for name in (*((default,) if default else ()), *_USUAL):
        try:
            text = Path(name).read_text()
        except (OSError, UnicodeDecodeError):
            continue
        if _BEGIN in text:
            return text
    _log.warning("this system has no authorities: servers outside are verified by those that are named alone")
    return ""
