"""The question what an authority means at a pod that answers for more than itself, and its answer."""

from __future__ import annotations

from dataclasses import dataclass

from ambient.model.address import IpAddress


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorityAsk:
    """An authority ("ip:port" or "host:port") that this worker cannot understand from the pod's policy alone."""

    uid: str
    authority: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorityAnswer:
    """`port` of the pod, 0: there is none here. `address` stands for the service named, if one was."""

    uid: str
    authority: str
    port: int = 0
    address: IpAddress | None = None
