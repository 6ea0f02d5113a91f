"""A policy and clients that have acknowledged some of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ambient.kube.objects import AuthorizationPolicy, Pod, Records

KEY = "AuthorizationPolicy/shop/deny"


@dataclass
class Stream:
    acked: int
    nacks: Mapping[str, str] = field(default_factory=dict)


def records(revision: int, generation: int = 1, *, changed: bool = True, uid: str = "u") -> Records:
    policy = AuthorizationPolicy(name="deny", namespace="shop", uid=uid, generation=generation)
    pod = Pod(name="p", namespace="shop")
    return Records(
        revision, {policy.key: policy, pod.key: pod}, changed=frozenset({policy.key, pod.key} if changed else {pod.key})
    )
