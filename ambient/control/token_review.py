"""Tokens of pods, verified by the Kubernetes API server (TokenReview), with a short memory of what it said.

When the server cannot be asked, tokens that it accepted lately go on for a stated time; about others we say that we do
not know, which is not the same as a refusal. No token is ever logged or quoted.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any, Final, Protocol

from ambient.ca.review import Reviewed, expiry, node_of_pod, read_review
from ambient.ca.token import Caller
from ambient.control.token_cache import TokenCache
from ambient.errors import InvalidInput, MeshError, Refused, Unavailable
from ambient.kube.api.failure import NotThere
from ambient.kube.resource import Resource
from ambient.log import LogLimit

REVIEWS: Final = Resource("authentication.k8s.io/v1", "tokenreviews", namespaced=False)
PODS: Final = Resource("v1", "pods")
FRESH_S: Final = 60.0
REFUSED_S: Final = 5.0
MOST_AT_ONCE: Final = 16
MOST_WAITING: Final = 512

_log = logging.getLogger("ambient.control.access")


class Api(Protocol):
    """What we need of `ambient.kube.api.client.ApiClient`."""

    async def create(self, resource: Resource, body: Any, namespace: str = "") -> dict[str, Any]: ...

    async def get(self, resource: Resource, name: str, namespace: str = "") -> dict[str, Any]: ...


class TokenReviews:
    """`verify` is for any number of calls at once; the same token is asked about once."""

    def __init__(
        self,
        api: Api,
        *,
        audience: str,
        stale_s: float,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        """`stale_s`: how long a token that was accepted goes on while the API server cannot be asked."""
        self._api = api
        self._audience = audience
        self._clock = clock
        self._wall = wall
        self._cache = TokenCache(fresh_s=FRESH_S, stale_s=stale_s, refused_s=REFUSED_S)
        self._asking: dict[bytes, asyncio.Task[Caller]] = {}
        self._turn = asyncio.Semaphore(MOST_AT_ONCE)
        self._loud = LogLimit(1)

    async def verify(self, token: str) -> Caller:
        """The caller that `token` proves. Raises Refused, or Unavailable when nobody can tell now."""
        end = expiry(token, self._wall(), self._audience)
        key = self._cache.key(token)
        known = self._cache.fresh(key, self._clock())
        if known is not None:
            return known
        asking = self._asking.get(key)
        if asking is None:
            if len(self._asking) >= MOST_WAITING:
                raise Unavailable("token", why=f"{MOST_WAITING} other tokens are being looked at")
            asking = self._asking[key] = asyncio.create_task(self._ask(token, key, end))
            asking.add_done_callback(lambda _: self._asking.pop(key, None))
        # One caller that gives up must not take the answer from the others.
        return await asyncio.shield(asking)

    async def _ask(self, token: str, key: bytes, end: float) -> Caller:
        try:
            async with self._turn:
                reviewed = await self._review(token)
                caller = reviewed.caller(reviewed.node or await self._look_up(reviewed))
        except Refused as error:
            self._cache.refuse(key, error.why, self._clock())
            raise
        except Unavailable as error:
            known = self._cache.usable(key, self._clock())
            if known is None:
                raise
            if self._loud.allows(self._clock()):
                _log.warning("%s goes on by what was known: %s%s", known.name, error, self._loud.note())
            return known
        self._cache.accept(key, caller, self._clock(), max(end - self._wall(), 0.0))
        return caller

    async def _review(self, token: str) -> Reviewed:
        spec = {"token": token, "audiences": [self._audience]}
        body = {"apiVersion": REVIEWS.group_version, "kind": "TokenReview", "spec": spec}
        return read_review(await _asked(self._api.create(REVIEWS, body)), self._audience)

    async def _look_up(self, reviewed: Reviewed) -> str:
        try:
            pod = await _asked(self._api.get(PODS, reviewed.pod, reviewed.namespace))
        except NotThere:
            raise Refused("token", why="the pod that it is bound to is gone") from None
        return node_of_pod(pod, reviewed)


async def _asked(answer: Any) -> dict[str, Any]:
    """What the API server answered. That it will not answer *us* says nothing about the token: Unavailable."""
    try:
        found: dict[str, Any] = await answer
    except NotThere:
        raise
    except (Refused, InvalidInput) as error:
        # Without its text: it may quote the request.
        raise Unavailable("token", why=f"the API server does not let us ask ({type(error).__name__})") from None
    except MeshError as error:
        raise Unavailable("token", why=f"the API server cannot be asked: {error.why}") from None
    return found
