"""The `bpf(2)` system call and bpffs, by ctypes: the only place where this package meets the kernel's structures.

It knows descriptors, bytes and paths; what they mean is for its callers. Every refusal is a KernelError. Structures and
numbers: include/uapi/linux/bpf.h (stable ABI).
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import resource
import struct
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Final

from ambient.errors import KernelError

SYSCALL: Final = {"x86_64": 321, "aarch64": 280}
_ATTR_SIZE: Final = 152

MAP_CREATE: Final = 0
MAP_LOOKUP: Final = 1
MAP_UPDATE: Final = 2
MAP_DELETE: Final = 3
MAP_NEXT_KEY: Final = 4
OBJ_PIN: Final = 6
OBJ_GET: Final = 7
PROG_TEST_RUN: Final = 10
INFO_BY_FD: Final = 15
PROG_BY_ID: Final = 13
PROG_QUERY: Final = 16
BTF_BY_ID: Final = 19
MAP_LOOKUP_BATCH: Final = 24
MAP_UPDATE_BATCH: Final = 26
MAP_DELETE_BATCH: Final = 27
LINK_CREATE: Final = 28
LINK_UPDATE: Final = 29
LINK_DETACH: Final = 34

_BEFORE_ALL: Final = 1 << 3
_NO_PREALLOC: Final = 1

PROG_INFO_SIZE: Final = 232
_PROG_NAME: Final = 64
_PROG_NAME_SIZE: Final = 16
_MOST_PROGRAMS: Final = 64
"""That the kernel lets on one TCX hook."""
MAP_INFO_SIZE: Final = 88
_MAP_TYPES_AT: Final = 64


def run(command: int, attributes: bytes) -> tuple[int, bytes]:
    """bpf(2) itself: what it gives, or the error's number below zero, and the attributes as the kernel left them."""
    libc = ctypes.CDLL(None, use_errno=True)
    block = ctypes.create_string_buffer(attributes, _ATTR_SIZE)
    result: int = libc.syscall(SYSCALL[platform.machine()], command, block, _ATTR_SIZE)
    return (result if result >= 0 else -ctypes.get_errno()), block.raw


def call(command: int, attributes: bytes, what: str, where: str) -> int:
    """What bpf(2) gives. Raises OSError; `what` and `where` go into its text."""
    result, _ = run(command, attributes)
    if result < 0:
        raise OSError(-result, os.strerror(-result), f"{what} {where}".strip())
    return result


def _refused(error: OSError, what: str, where: str) -> KernelError:
    hint = "; this needs CAP_BPF and CAP_NET_ADMIN" if error.errno == errno.EPERM else ""
    return KernelError(what, where, f"{os.strerror(error.errno or 0)}{hint}")


def open_pin(path: Path) -> int:
    """A new descriptor of what is pinned at `path`. Raises FileNotFoundError or KernelError."""
    name = ctypes.create_string_buffer(os.fsencode(path))
    try:
        descriptor = call(OBJ_GET, struct.pack("QII", ctypes.addressof(name), 0, 0), "open pin", str(path))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise _refused(error, "cannot open a pinned object", str(path)) from error
    return descriptor


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """`open_pin` for the time of the block."""
    descriptor = open_pin(path)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def pin(descriptor: int, path: Path) -> None:
    """Raises FileExistsError or KernelError."""
    name = ctypes.create_string_buffer(os.fsencode(path))
    try:
        call(OBJ_PIN, struct.pack("QII", ctypes.addressof(name), descriptor, 0), "pin", str(path))
    except FileExistsError:
        raise
    except OSError as error:
        raise _refused(error, "cannot pin", str(path)) from error


class Map:
    """An open map with keys and values of fixed size, as bytes. Closes its descriptor with `close`."""

    __slots__ = ("descriptor", "key_size", "path", "types", "value_size")

    def __init__(self, path: Path, key_size: int, value_size: int) -> None:
        """Raises FileNotFoundError, or KernelError when the pinned map has other sizes. `types`: the numbers of its BTF
        and of its key's and value's types there; zeros without."""
        self.path = path
        self.key_size = key_size
        self.value_size = value_size
        self.descriptor = open_pin(path)
        told = object_info(self.descriptor, MAP_INFO_SIZE, str(path))
        sizes = struct.unpack_from("II", told, 8)
        self.types: tuple[int, int, int] = struct.unpack_from("III", told, _MAP_TYPES_AT)
        per_cpu = (sizes[1] + 7) // 8 * 8 * possible_cpus()
        if sizes[0] != key_size or value_size not in (sizes[1], per_cpu):
            self.close()
            raise KernelError(
                "a pinned map has another layout", str(path), f"key, value = {sizes}, not {(key_size, value_size)}"
            )

    def close(self) -> None:
        os.close(self.descriptor)

    def _run(self, command: int, key: bytes | None, value: ctypes.Array[ctypes.c_char] | None) -> None:
        name = ctypes.create_string_buffer(key, self.key_size) if key is not None else None
        attributes = struct.pack(
            "IIQQQ",
            self.descriptor,
            0,
            ctypes.addressof(name) if name is not None else 0,
            ctypes.addressof(value) if value is not None else 0,
            0,
        )
        try:
            call(command, attributes, "map", str(self.path))
        except FileNotFoundError:
            raise
        except OSError as error:
            raise _refused(error, "the kernel refuses a map operation", str(self.path)) from error

    def get(self, key: bytes) -> bytes | None:
        value = ctypes.create_string_buffer(self.value_size)
        try:
            self._run(MAP_LOOKUP, key, value)
        except FileNotFoundError:
            return None
        return value.raw

    def put(self, key: bytes, value: bytes) -> None:
        """Raises KernelError, also when the map is full."""
        self._run(MAP_UPDATE, key, ctypes.create_string_buffer(value, self.value_size))

    def delete(self, key: bytes) -> bool:
        """False: it was not there."""
        try:
            self._run(MAP_DELETE, key, None)
        except FileNotFoundError:
            return False
        return True

    def put_many(self, entries: Mapping[bytes, bytes]) -> None:
        """As `put` of each, in one call: of a map of maps every call waits for all programs that run at the moment.
        Raises KernelError when one is refused; which of the others are there is not known then."""
        if not self._batch(MAP_UPDATE_BATCH, b"".join(entries), b"".join(entries.values()), len(entries)):
            for key, value in entries.items():
                self.put(key, value)

    def delete_many(self, keys: Collection[bytes]) -> None:
        """As `delete` of each, in one call."""
        if not self._batch(MAP_DELETE_BATCH, b"".join(keys), b"", len(keys)):
            for key in keys:
                self.delete(key)

    def _batch(self, command: int, keys: bytes, values: bytes, count: int) -> bool:
        """False: not all was done, or this kernel has no such call."""
        if not count:
            return True
        key_block, value_block = ctypes.create_string_buffer(keys), ctypes.create_string_buffer(values)
        attributes = struct.pack(
            "QQQQIIQQ",
            0,
            0,
            ctypes.addressof(key_block),
            ctypes.addressof(value_block),
            count,
            self.descriptor,
            0,
            0,
        )
        try:
            call(command, attributes, "map", str(self.path))
        except OSError:
            return False
        return True

    def walk(self) -> Iterator[bytes]:
        """Every key that is there all the time; one that is put or deleted meanwhile may be missed or seen twice."""
        following = ctypes.create_string_buffer(self.key_size)
        key: bytes | None = None
        while True:
            try:
                self._run(MAP_NEXT_KEY, key, following)
            except FileNotFoundError:
                return
            key = following.raw
            yield key


def make_map(kind: int, like: Map, entries: int, name: str) -> int:
    """A new map of that kind (enum bpf_map_type) without entries, which take memory as they come; gives its descriptor.
    Raises KernelError. `like`: one of the same types; Linux 6.1 puts no other into a map of maps."""
    btf, *types = like.types
    try:
        with ExitStack() as stack:
            if btf:
                btf = call(BTF_BY_ID, struct.pack("I", btf), "open BTF", name)
                stack.callback(os.close, btf)
            sizes = (kind, like.key_size, like.value_size, entries, _NO_PREALLOC)
            request = struct.pack("IIIIIII16sIIII", *sizes, 0, 0, name.encode()[:15], 0, btf, *types)
            return call(MAP_CREATE, request, "create map", name)
    except OSError as error:
        raise _refused(error, "the kernel makes no map", name) from error


def lift_memory_limit() -> None:
    """Before Linux 5.11 the memory of maps counts against this process's RLIMIT_MEMLOCK. Without CAP_SYS_RESOURCE it
    stays as it is, which newer kernels do not mind."""
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def make_filled(kind: int, like: Map, entries: int, items: Iterable[tuple[bytes, bytes]], name: str) -> int:
    """`make_map` that holds `items`. Raises KernelError, also when there are more than `entries`."""
    key_size, value_size = like.key_size, like.value_size
    made = make_map(kind, like, entries, name)
    libc = ctypes.CDLL(None, use_errno=True)
    key, value = ctypes.create_string_buffer(key_size), ctypes.create_string_buffer(value_size)
    attributes = struct.pack("IIQQQ", made, 0, ctypes.addressof(key), ctypes.addressof(value), 0)
    block = ctypes.create_string_buffer(attributes, _ATTR_SIZE)
    number = SYSCALL[platform.machine()]
    for one, its in items:
        key.raw, value.raw = one, its
        if libc.syscall(number, MAP_UPDATE, block, _ATTR_SIZE) < 0:
            os.close(made)
            code = ctypes.get_errno()
            raise _refused(OSError(code, os.strerror(code)), "the kernel refuses a map operation", name)
    return made


def run_once(program: int, packet: bytes, *, mark: int = 0, came_by: int = 0) -> tuple[int, bytes]:
    """Run a packet program once on a frame; gives its verdict and the frame as it left it. Raises KernelError.

    The frame appears on lo of the current network namespace, as if it had come into it by the interface `came_by`.
    """
    frame, result = ctypes.create_string_buffer(packet, len(packet)), ctypes.create_string_buffer(len(packet) + 256)
    context = ctypes.create_string_buffer(struct.pack("=8xI24xI", mark, came_by), 192)
    request = struct.pack(
        "IIIIQQIIIIQQIII",
        program,
        0,
        len(packet),
        len(result),
        ctypes.addressof(frame),
        ctypes.addressof(result),
        1,
        0,
        len(context),
        0,
        ctypes.addressof(context),
        0,
        0,
        0,
        0,
    )
    code, answer = run(PROG_TEST_RUN, request)
    if code < 0:
        raise _refused(OSError(-code, os.strerror(-code)), "cannot run a program on a frame", f"{len(packet)} bytes")
    _, verdict, _, size = struct.unpack_from("IiII", answer)
    return int(verdict), result.raw[:size]


def object_info(descriptor: int, size: int, where: str, asked: bytes = b"") -> bytes:
    """The first `size` bytes of what the kernel tells of an object; `asked` has room for lists. Raises KernelError."""
    block = ctypes.create_string_buffer(asked, size)
    try:
        call(INFO_BY_FD, struct.pack("IIQ", descriptor, size, ctypes.addressof(block)), "info", where)
    except OSError as error:
        raise _refused(error, "the kernel tells nothing about an object", where) from error
    return block.raw


def possible_cpus() -> int:
    """How many values a per-CPU map has for one key."""
    last = Path("/sys/devices/system/cpu/possible").read_text().strip().replace(",", "-").rpartition("-")[2]
    return int(last) + 1


def create_link(program: int, target: int, attach_type: int, where: str, *, before_all: bool) -> int:
    """Attach a program; gives the link. TCX: `target` is an ifindex of the *current* network namespace, and with
    `before_all` the program runs before those that are there already. SK_LOOKUP: a descriptor of the namespace."""
    attributes = struct.pack("IIIIIIQ", program, target, attach_type, _BEFORE_ALL if before_all else 0, 0, 0, 0)
    try:
        return call(LINK_CREATE, attributes, "attach", where)
    except OSError as error:
        raise _refused(error, "cannot attach a program", where) from error


def update_link(link: int, program: int, where: str) -> None:
    """Exchange the program of a link, atomically. Raises KernelError."""
    try:
        call(LINK_UPDATE, struct.pack("IIII", link, program, 0, 0), "update link", where)
    except OSError as error:
        raise _refused(error, "cannot exchange the program of a link", where) from error


def detach_link(path: Path) -> None:
    """Take the program of a pinned link off its interface, now: dropping the last reference does it some time later.

    Fine when the interface is gone. Raises FileNotFoundError or KernelError.
    """
    with opened(path) as link:
        try:
            call(LINK_DETACH, struct.pack("I", link), "detach link", str(path))
        except OSError as error:
            if error.errno not in {errno.ENOLINK, errno.ENODEV, errno.ENOENT}:
                raise _refused(error, "cannot detach a program", str(path)) from error


def link_target(path: Path) -> int:
    """Where the link pinned at `path` is: the ifindex, or the inode of the namespace for SK_LOOKUP; 0 when that is
    gone. Raises FileNotFoundError."""
    with opened(path) as link:
        # type, id, prog_id, padding; then ifindex or inode, and the attach type
        return int(struct.unpack_from("IIIII", object_info(link, 40, str(path)), 0)[4])


def link_program(path: Path) -> int:
    """The id of the program behind the link pinned at `path`."""
    with opened(path) as link:
        return int(struct.unpack_from("III", object_info(link, 40, str(path)), 0)[2])


def program_id(path: Path) -> int:
    with opened(path) as program:
        return int(struct.unpack_from("II", object_info(program, PROG_INFO_SIZE, str(path)), 0)[1])


def attached_programs(ifindex: int, attach_type: int) -> list[int]:
    """Ids of the programs on a TCX hook of an interface of the current network namespace, in the order in which they
    run. [] where this kernel cannot tell (before 6.6)."""
    ids = ctypes.create_string_buffer(4 * _MOST_PROGRAMS)
    request = struct.pack("IIIIQI", ifindex, attach_type, 0, 0, ctypes.addressof(ids), _MOST_PROGRAMS)
    result, answer = run(PROG_QUERY, request)
    if result < 0:
        return []
    (count,) = struct.unpack_from("I", answer, 24)
    return list(struct.unpack_from(f"{count}I", ids))


def has_tcx(attach_type: int) -> bool:
    """Whether this kernel has that TCX hook, asked of lo in the current network namespace."""
    try:
        call(PROG_QUERY, struct.pack("IIIIQI", 1, attach_type, 0, 0, 0, 0), "query", "lo")
    except OSError as error:
        return error.errno == errno.ENOENT
    return True


def program_name(identifier: int) -> str:
    """As its loader named it (15 letters); "" when it is gone."""
    try:
        descriptor = call(PROG_BY_ID, struct.pack("I", identifier), "program", str(identifier))
    except OSError:
        return ""
    try:
        told = object_info(descriptor, PROG_INFO_SIZE, str(identifier))
    finally:
        os.close(descriptor)
    return told[_PROG_NAME : _PROG_NAME + _PROG_NAME_SIZE].split(b"\0")[0].decode(errors="replace")
