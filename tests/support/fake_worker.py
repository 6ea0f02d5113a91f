"""A worker without a data plane: says Hello, serves every pod it is given (or says why not), keeps all it hears."""

from __future__ import annotations

import asyncio
import os
import socket
from dataclasses import replace
from typing import TypeVar

from tests.support.waiting import eventually
from ztunnel.inpod.listeners import Listeners, netns_inode
from ztunnel.ipc.channel import Channel
from ztunnel.ipc.messages import (
    AskListeners,
    Drain,
    Drained,
    Hello,
    PodListeners,
    PodReady,
    PodUp,
    PodUpdate,
    Policies,
    ToDirector,
)
from ztunnel.ipc.told import Known

T = TypeVar("T")


class FakeWorker:
    """`error`: what it answers to PodUp; `silent`: it does not answer at all."""

    def __init__(self, path: str, slot: int = 0, pid: int = 1000, *, error: str = "", silent: bool = False) -> None:
        self.heard: list[object] = []
        self.pods: dict[str, tuple[PodUp, list[int]]] = {}
        self.certificates: dict[str, bytes] = {}
        self.closed = False
        self.netns = 0
        """The inode it claims to serve its pods in; 0: the true one."""
        self.slot, self.pid, self.error, self.silent = slot, pid, error, silent
        self._path = path
        self._channel: Channel | None = None
        self._known = Known()

    def connect(self) -> FakeWorker:
        """Join (again), naming the pods it serves."""
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.connect(self._path)
        self._channel = Channel(asyncio.get_running_loop(), sock, self._message, self._lost)
        self.closed = False
        self._known.clear()
        netns = tuple(self.netns or netns_inode(fds[0]) for _, fds in self.pods.values())
        self.say(Hello(pid=self.pid, slot=self.slot, pods=tuple(self.pods), netns=netns))
        return self

    def say(self, message: ToDirector, fds: tuple[int, ...] = ()) -> None:
        assert self._channel is not None
        self._channel.send(message, fds)

    def hang_up(self) -> None:
        """As when the connection breaks: the pods stay."""
        if self._channel is not None:
            self._channel.close()

    def die(self) -> None:
        """As when the process ends: everything is closed."""
        self.hang_up()
        for _, fds in self.pods.values():
            for fd in fds:
                os.close(fd)
        self.pods.clear()

    def all(self, kind: type[T]) -> list[T]:
        return [message for message in self.heard if isinstance(message, kind)]

    async def hears(self, kind: type[T], count: int = 1) -> T:
        """The `count`-th message of a kind, when it is there."""
        await eventually(lambda: len(self.all(kind)) >= count, f"for {kind.__name__}, heard {self.heard}")
        return self.all(kind)[count - 1]

    def _message(self, message: object, fds: list[int]) -> None:
        if isinstance(message, PodUp | PodUpdate):
            message = replace(message, policy=self._known.whole(message.policy))
        self.heard.append(message)
        match message:
            case Policies():
                self._known.take(message)
            case PodUp():
                earlier = self.pods.pop(message.uid, None)
                for fd in earlier[1] if earlier else ():
                    os.close(fd)
                if self.error or self.silent:
                    for fd in fds:
                        os.close(fd)
                else:
                    self.pods[message.uid] = (message, fds)
                if not self.silent:
                    self.say(PodReady(uid=message.uid, error=self.error))
                return
            case AskListeners():
                up, held = self.pods[message.uid]
                answer = PodListeners(
                    uid=up.uid,
                    name=up.name,
                    namespace=up.namespace,
                    service_account=up.service_account,
                    identity=up.identity,
                )
                self.say(answer, tuple(held))
            case Drain():
                self.say(Drained())
        if type(message).__name__ == "Certificate":
            self.certificates[message.identity] = os.pread(fds[0], 1 << 20, 0)  # type: ignore[attr-defined]
        for fd in fds:
            os.close(fd)

    def _lost(self) -> None:
        self.closed = True


def own_netns() -> int:
    """A descriptor of this process' network namespace: a real one that needs no privilege."""
    return os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def loose_listeners(netns: int) -> Listeners:
    """In place of `bind`: three listening sockets anywhere."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    return Listeners(netns_inode(netns), (netns, *(sock.detach() for sock in sockets)))


def loose_adoption(fds: list[int]) -> Listeners:
    """In place of `adopt`."""
    return Listeners(netns_inode(fds[0]), tuple(fds))


def same_file(left: int, right: int) -> bool:
    """Two descriptors are of one open socket or file."""
    one, two = os.fstat(left), os.fstat(right)
    return (one.st_dev, one.st_ino) == (two.st_dev, two.st_ino)
