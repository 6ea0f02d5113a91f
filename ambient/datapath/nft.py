"""Our nftables table in a network namespace: put there, read, taken away, and asked whether anybody was at it since.

`nft` is the distribution's (package nftables). Whatever it is given takes effect in one transaction or not at all. The
kernel numbers the transactions of a namespace; asking for the number is one message, so that looking after many pods
starts no process.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import subprocess
from typing import Final

from ambient.datapath.rules import TABLE, removal
from ambient.errors import KernelError, Unavailable
from ambient.netns import entered

SECONDS: Final = 30
"""How long one call may take before it is ended."""

# linux/netfilter/nfnetlink.h, nf_tables.h
_NETFILTER: Final = 12
_SUBSYSTEM: Final = 10 << 8
_NEWTABLE: Final = _SUBSYSTEM
_GETTABLE: Final = _SUBSYSTEM | 1
_NEWGEN: Final = _SUBSYSTEM | 15
_GETGEN: Final = _SUBSYSTEM | 16
_TABLE_NAME: Final = 1
_GENERATION: Final = 1
_INET: Final = 1
_REQUEST: Final = 1
_FAILED: Final = 2
"""NLMSG_ERROR, which begins with the number of the error, below zero."""
_ERROR: Final = struct.Struct("=i")
_HEADER: Final = struct.Struct("=IHHII")
_ABOUT: Final = struct.Struct("=BBH")
_ATTRIBUTE: Final = struct.Struct("=HH")


def put(netns_fd: int, rules: str) -> None:
    """Have these rules in force there. Raises KernelError, and then nothing is changed; Unavailable without nft."""
    _nft(netns_fd, ["-f", "-"], rules)


def remove(netns_fd: int) -> None:
    """Fine when there is no table. Raises KernelError."""
    if is_there(netns_fd):
        _nft(netns_fd, ["-f", "-"], removal())


def listing(netns_fd: int) -> str | None:
    """The table as nft writes it, without what only counts; None when there is none."""
    return _nft(netns_fd, ["--stateless", "list", "table", "inet", TABLE], "") if is_there(netns_fd) else None


def check(rules: str) -> None:
    """Whether this kernel and this nft would take these rules here. Raises KernelError, or Unavailable without nft."""
    netns = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _nft(netns, ["--check", "-f", "-"], rules)
    finally:
        os.close(netns)


def generation(netns_fd: int) -> int:
    """The number of the last transaction there. Raises KernelError."""
    kind, body = _ask(netns_fd, _GETGEN, b"")
    at = _ABOUT.size
    while kind == _NEWGEN and at + _ATTRIBUTE.size <= len(body):
        size, name = _ATTRIBUTE.unpack_from(body, at)
        if name == _GENERATION:
            return int.from_bytes(body[at + _ATTRIBUTE.size : at + size], "big")
        at += max(_ATTRIBUTE.size, size + 3 & ~3)
    raise KernelError("nftables does not answer", f"namespace {os.fstat(netns_fd).st_ino}", f"message {kind}")


def is_there(netns_fd: int) -> bool:
    """There is a table of our name. Raises KernelError."""
    name = TABLE.encode() + b"\0"
    attribute = _ATTRIBUTE.pack(_ATTRIBUTE.size + len(name), _TABLE_NAME) + name
    kind, body = _ask(netns_fd, _GETTABLE, attribute + bytes(-len(attribute) % 4))
    if kind == _NEWTABLE:
        return True
    failure = -_ERROR.unpack_from(body)[0] if kind == _FAILED and len(body) >= _ERROR.size else 0
    if failure != errno.ENOENT:
        why = os.strerror(failure) if failure else f"message {kind}"
        raise KernelError("nftables does not answer", f"namespace {os.fstat(netns_fd).st_ino}", why)
    return False


def _ask(netns_fd: int, message: int, attributes: bytes) -> tuple[int, bytes]:
    """Kind and body of the answer."""
    with entered(netns_fd):
        try:
            netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETFILTER)
        except OSError as error:
            raise KernelError("no nftables", "netlink", error.strerror or str(error)) from error
    with netlink:
        try:
            body = _ABOUT.pack(_INET, 0, 0) + attributes
            netlink.send(_HEADER.pack(_HEADER.size + len(body), message, _REQUEST, 1, 0) + body)
            answer = netlink.recv(8192)
        except OSError as error:
            raise KernelError("nftables does not answer", "netlink", error.strerror or str(error)) from error
    _, kind, _, _, _ = _HEADER.unpack_from(answer)
    return kind, answer[_HEADER.size :]


def _nft(netns_fd: int, words: list[str], text: str) -> str:
    command = ["nft", *words]
    try:
        with entered(netns_fd):
            done = subprocess.run(
                command, input=text, capture_output=True, text=True, errors="replace", timeout=SECONDS, check=False
            )
    except FileNotFoundError:
        raise Unavailable("no nft", "nft", "install the package nftables") from None
    except subprocess.TimeoutExpired:
        raise KernelError("nft does not end", " ".join(command), f"{SECONDS} s are over") from None
    if done.returncode:
        raise KernelError("nftables refuses", " ".join(command), done.stderr.strip()[:2000])
    return done.stdout
