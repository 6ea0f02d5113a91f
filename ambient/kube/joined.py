"""WorkloadEntries that stand for machines which have joined: their annotations, and the node that each of them is.

The node's name lies in a domain of ours, in which no Kubernetes node is believed: a machine can never pass for one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

SESSION: Final = "ambient.mesh/session"
"""Digest of the session's secret: it is a joined entry, and stays one until this goes."""
SEEN: Final = "ambient.mesh/seen"
"""Unix time, in seconds, of a sign of life; renewed now and then, not at each."""
UNHEALTHY: Final = "ambient.mesh/unhealthy"
"""Why it may get no new connections; absent while it is well."""
GROUP: Final = "istio.io/autoRegistrationGroup"
REDIRECTION: Final = "ambient.istio.io/redirection"


DOMAIN: Final = ".joined.ambient.mesh"
"""How the names of joined machines end."""


def joined_node(namespace: str, entry: str) -> str:
    """The name of the machine behind an entry."""
    return f"{entry}.{namespace}{DOMAIN}"


def is_joined(annotations: Mapping[str, str]) -> bool:
    return bool(annotations.get(SESSION))
