"""Leaving keys with the node agent and taking them back, so that a restarted ztunnel serves at once without the CA.

The agent may not be there, or be Istio's (then there is no custody): everything here is best effort and the
certificates in this process are what counts.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ambient.errors import MeshError, ProtocolError
from ambient.zds import custody as wire
from ambient.zds.packet import PacketSocket, close_all, connect

TIMEOUT_S: Final = 2.0
RETRY_S: Final = 0.25

_log = logging.getLogger("custody")


@dataclass(frozen=True, slots=True)
class Secret:
    """A sealed memfd with key and chain, the PEM of its roots, its end in Unix seconds."""

    fd: int
    roots: str
    not_after: float


class Custody:
    """`held()` gives what this process has now: all of it is put again after each reconnect. `offer` is given what was
    in custody when the agent could be asked only after the start."""

    def __init__(
        self,
        path: str,
        held: Callable[[], Iterable[tuple[str, Secret]]],
        offer: Callable[[Mapping[str, Secret]], None],
    ) -> None:
        self._path = Path(path)
        self._held = held
        self._offer = offer
        self._asked = False
        self._too_large = 0
        self._changes: asyncio.Queue[str] = asyncio.Queue()

    async def take_back(self, loudness: int = logging.INFO) -> dict[str, Secret]:
        """Everything in custody; {} when nobody answers in time. The descriptors are the caller's."""
        found: dict[str, Secret] = {}
        try:
            async with asyncio.timeout(TIMEOUT_S):
                link = connect(self._path)
                try:
                    await self._list(link, found)
                finally:
                    link.close()
            self._asked = True
        except (MeshError, TimeoutError) as error:
            _log.log(loudness, "nothing taken back yet: %s", error or "no answer in time")
        return found

    async def _list(self, link: PacketSocket, found: dict[str, Secret]) -> None:
        await link.send(wire.encode(wire.List()))
        while isinstance(message := await self._receive(link, found), wire.Held):
            pass
        if not isinstance(message, wire.End):
            raise ProtocolError("custody", str(self._path), f"unexpected {type(message).__name__}")

    def changed(self, identity: str) -> None:
        """This identity has a new certificate, or none any more: tell the agent when possible."""
        self._changes.put_nowait(identity)

    def gauges(self) -> dict[str, float]:
        """Metrics of what cannot be left with the agent."""
        return {"ambient_certificates_too_large_for_custody": self._too_large}

    def _fits(self) -> bool:
        """All that is held can be put. If not it is said, and the agent is left alone: with a part of it there, it
        would hold the starts of pods whose certificate seems to be missing."""
        too_large = [
            (identity, secret, why)
            for identity, secret in self._held()
            if (why := _refusal(_put(identity, secret))) is not None
        ]
        if too_large and not self._too_large:
            identity, secret, why = too_large[0]
            _log.warning(
                "no certificate is left with the agent at %s, and a restarted ztunnel will need new ones: that for %s "
                "comes with %d bytes of roots (%s)",
                self._path,
                identity,
                len(secret.roots),
                why,
            )
        elif self._too_large and not too_large:
            _log.info("certificates are left with the agent at %s again", self._path)
        self._too_large = len(too_large)
        return not too_large

    async def run(self) -> None:
        """Keep the agent's copy like ours, for ever."""
        while True:
            try:
                if not self._asked:
                    # Before anything of ours replaces it there.
                    found = await self.take_back(logging.DEBUG)
                    if found:
                        _log.info("taken back late: %d certificates", len(found))
                        self._offer(found)
                if self._fits():
                    link = connect(self._path)
                    try:
                        await self._mirror(link)
                    finally:
                        link.close()
            except MeshError as error:
                _log.debug("%s", error)
            await asyncio.sleep(RETRY_S)

    async def _mirror(self, link: PacketSocket) -> None:
        for identity, secret in list(self._held()):
            await link.send(wire.encode(_put(identity, secret)), [secret.fd])
        closed = asyncio.ensure_future(link.receive(wire.MAX_PACKET))
        try:
            while not closed.done():
                change = asyncio.ensure_future(self._changes.get())
                await asyncio.wait({change, closed}, return_when=asyncio.FIRST_COMPLETED)
                if not change.done():
                    change.cancel()
                    return
                identity = change.result()
                held = dict(self._held())
                ours = held.get(identity)
                if ours is not None:
                    await link.send(wire.encode(_put(identity, ours)), [ours.fd])
                else:
                    await link.send(wire.encode(wire.Drop(identity)))
        finally:
            closed.cancel()
            await asyncio.gather(closed, return_exceptions=True)

    async def _receive(self, link: PacketSocket, found: dict[str, Secret]) -> wire.Custody:
        packet, fds = await link.receive(wire.MAX_PACKET)
        try:
            message = wire.decode(packet, len(fds))
        except ProtocolError:
            close_all(fds)
            raise
        if isinstance(message, wire.Held):
            earlier = found.pop(message.identity, None)
            if earlier is not None:
                os.close(earlier.fd)
            found[message.identity] = Secret(fds[0], message.roots, message.not_after)
        return message


def _put(identity: str, secret: Secret) -> wire.Put:
    return wire.Put(identity, secret.not_after, secret.roots)


def _refusal(message: wire.Custody) -> str | None:
    """Why a message cannot be sent."""
    try:
        wire.encode(message)
    except ProtocolError as error:
        return str(error)
    return None
