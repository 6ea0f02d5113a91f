"""What director and workers both run, imported once before either is forked.

Left to each of them is what the other has no use for: workers must not have what the director imports.
"""

from __future__ import annotations

from importlib import import_module
from typing import Final

from ztunnel import compiled

COMMON: Final = (
    *("ambient.netns", "ztunnel.ipc.channel", "ztunnel.ipc.flows", "ztunnel.ipc.handover", "ztunnel.ipc.told"),
    *("ztunnel.telemetry.access_log", "ztunnel.telemetry.counters", "ztunnel.telemetry.log_filter"),
    *("ztunnel.tls.contexts", "ztunnel.tls.revocation"),
)
"""With what they import in turn."""


def load() -> compiled.Form:
    """Import it; says in which form."""
    form = compiled.use()
    # Not before the compiled modules, if there are any, are the ones that are found.
    for module in COMMON:
        import_module(module)
    return form
