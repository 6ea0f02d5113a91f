"""From an accepted socket over plain TCP to a target: connect, then relay."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from ambient.errors import KernelError, MeshError
from ambient.model.address import Endpoint
from ztunnel.proxy.dial import Dial
from ztunnel.proxy.relay import PlainEnd, join
from ztunnel.proxy.socket_end import abort_socket
from ztunnel.proxy.sockets import speak_as
from ztunnel.proxy.tuples import Found
from ztunnel.telemetry.record import ConnectionRecord, Failure, Flag

if TYPE_CHECKING:
    import asyncio

    from ztunnel.proxy.pod import Pod

CONNECT_TIMEOUT_S: Final = 10.0
_TAKEN: Final = (errno.EADDRINUSE, errno.EADDRNOTAVAIL)
_BIND_TRIES: Final = 8


def socket_for(pod: Pod, target: Endpoint, speak_for: Endpoint | None) -> socket.socket:
    """A socket in the pod's namespace; with `speak_for` the target sees that address, if the kernel lets us.

    A loop-back source or the target's own address is never put on. Raises KernelError, also where the setting demands
    the client's address and it cannot be had.
    """
    wish = pod.plane.settings.orig_src
    if speak_for is None or speak_for.ip == target.ip or speak_for.ip.version != target.ip.version or wish == "false":
        return pod.sockets.tcp(target.ip.version)
    why = "every port tried leads to another connection"
    second_best: socket.socket | None = None
    for _ in range(_BIND_TRIES):
        sock = pod.sockets.tcp(target.ip.version)
        client = Endpoint(speak_for.ip, next(pod.ports))
        try:
            speak_as(sock, client)
        except OSError as error:
            sock.close()
            why = str(error)
            if error.errno != errno.EADDRINUSE:
                break
            continue
        found = pod.sockets.found(target, client)
        if found is Found.NOTHING and client.port != speak_for.port:
            if second_best is not None:
                second_best.close()
            return sock
        if found is Found.REMAINS and second_best is None:
            second_best = sock
            continue
        sock.close()
        pod.plane.recorder.counters.count("source_port_collisions")
    if second_best is not None:
        return second_best
    if wish == "true":
        raise KernelError("socket", str(speak_for.ip), f"cannot speak as the client: {why}")
    pod.plane.recorder.counters.count("source_address_not_preserved")
    pod.plane.recorder.log.log("warn", "proxy", f"cannot speak as {speak_for.ip}: {why}")
    return pod.sockets.tcp(target.ip.version)


class AppDial:
    """Connects to the application, as the client if `speak_for` is given; tries again when a port was taken."""

    __slots__ = ("_again", "_dial", "_done", "_pod", "_speak_for", "_target", "_tries", "sock")

    def __init__(
        self,
        pod: Pod,
        target: Endpoint,
        speak_for: Endpoint | None,
        done: Callable[[socket.socket | None, OSError | None], None],
    ) -> None:
        self._pod = pod
        self._target = target
        self._speak_for = speak_for
        self._done = done
        self._tries = 0
        self._dial: Dial | None = None
        self._again: asyncio.Handle | None = None
        self.sock: socket.socket | None = None

    def begin(self) -> None:
        """Start; `done` may be called before this returns."""
        try:
            self.sock = socket_for(self._pod, self._target, self._speak_for)
        except MeshError as error:
            self._done(None, OSError(errno.EIO, str(error)))
            return
        self._dial = Dial(self._pod.plane.poller, self.sock, self._target, CONNECT_TIMEOUT_S, self._connected)

    def cancel(self) -> None:
        """Forget it."""
        if self._again is not None:
            self._again.cancel()
        if self._dial is not None:
            self._dial.cancel()
        if self.sock is not None:
            self.sock.close()

    def _connected(self, error: OSError | None) -> None:
        sock, self.sock = self.sock, None
        assert sock is not None
        if error is None:
            self._done(sock, None)
            return
        sock.close()
        if error.errno in _TAKEN and self._speak_for is not None:
            self._tries += 1
            self._pod.plane.recorder.counters.count("source_port_collisions")
            if self._tries >= _BIND_TRIES and self._pod.plane.settings.orig_src == "true":
                self._done(None, error)
                return
            if self._tries >= _BIND_TRIES:
                # Better from our own address than not at all; it is counted.
                self._speak_for = None
                self._pod.plane.recorder.counters.count("source_address_not_preserved")
            self._again = self._pod.plane.loop.call_soon(self.begin)
            return
        self._done(None, error)


class Straight:
    """Owns `client` (accepted). `over` is called once with the failure, if any."""

    __slots__ = ("_client", "_dial", "_end", "_over", "_pod", "_record", "_target")

    def __init__(
        self,
        pod: Pod,
        client: socket.socket,
        record: ConnectionRecord,
        target: Endpoint,
        speak_for: Endpoint | None,
        over: Callable[[Failure | None], None],
    ) -> None:
        self._pod = pod
        self._client = client
        self._record = record
        self._target = target
        self._over = over
        self._end: PlainEnd | None = None
        self._dial: AppDial | None = AppDial(pod, target, speak_for, self._connected)

    def begin(self) -> None:
        """Connect, then relay."""
        if self._dial is not None:
            self._dial.begin()

    def _connected(self, sock: socket.socket | None, error: OSError | None) -> None:
        self._dial = None
        if sock is None:
            why = error.strerror or str(error) if error is not None else "unknown"
            self._fail(Failure(Flag.CONNECT, f"connect to {self._target}: {why}"))
            return
        plane = self._pod.plane
        client = PlainEnd(plane.poller, self._client, self, self._pod.buffers, plane.crashed)
        server = PlainEnd(plane.poller, sock, self, self._pod.buffers, plane.crashed)
        self._end = client
        self._record.meter = client
        self._record.app_is_client = True
        join(client, server)

    def cut(self, failure: Failure) -> None:
        """End both sides now."""
        if self._end is not None:
            self._end.cut(failure)
            return
        dial, self._dial = self._dial, None
        if dial is not None:
            dial.cancel()
            self._fail(failure)

    def ended(self, failure: Failure | None) -> None:
        """The relay is over."""
        self._over(failure)

    def _fail(self, failure: Failure) -> None:
        abort_socket(self._client)
        self._over(failure)
