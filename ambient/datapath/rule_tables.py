"""The tables that an agent has written on this node, wherever they are."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from ambient.datapath import nft, pod_net
from ambient.datapath.namespaces import namespaces
from ambient.datapath.rules import NODE, TABLE, Written, read
from ambient.errors import InvalidInput, KernelError


def owner_name(node: str, state: Path) -> str:
    """How an agent calls itself in its tables: nodes of one machine must not take one another's for theirs."""
    return hashlib.sha256(f"{node} {state.resolve()}".encode()).hexdigest()[:16]


def of(owner: str) -> Iterator[tuple[int, Written]]:
    """The network namespace (open until the next) and what its table says. Namespaces that nftables does not answer
    for have none."""
    for fd in namespaces():
        try:
            found = nft.listing(fd)
            written = None if found is None else read(found)
        except (KernelError, InvalidInput):
            continue  # not ours to judge
        if written is not None and written.owner == owner:
            yield fd, written


def remove_all(owner: str) -> set[str]:
    """The uids of the pods (or NODE) that had one. Raises KernelError when some could not be taken away; the others
    are."""
    uids, failures = set(), []
    for fd, written in of(owner):
        try:
            nft.remove(fd)
            if written.uid != NODE:
                pod_net.forget_half_closed(fd)
        except KernelError as error:
            failures.append(f"{written.uid}: {error}")
        uids.add(written.uid)
    if failures:
        raise KernelError("tables that stay", f"inet {TABLE}", "; ".join(failures))
    return uids
