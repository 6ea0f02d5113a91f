"""Loading, upgrading, attaching and removing the programs of one node.

Below the node's bpffs directory: `maps/<name>`, `programs/<version>/<program>` (one version at a time),
`pods/<uid>/<program>` (the TCX links of a pod), `node/<program>` (links of the node itself). How one version follows
another: `exchange`.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Literal

from ambient.datapath import bpfinfo, bpfsys, btf, cgroups, clsact, hooked, sources, tc_sockets
from ambient.datapath.bpffs import ensure_bpffs
from ambient.datapath.exchange import (
    NODE,
    PODS,
    PROGRAMS,
    Checkpoint,
    finish,
    is_as_written,
    no_checkpoint,
    repair_pins,
    stage,
    switch_links,
)
from ambient.datapath.hooks import HOOKS, NODE_HOOKS, Attach, Hook, Side
from ambient.datapath.maps import MAPS, Maps, Option
from ambient.datapath.tc_sockets import NAMED_MACRO, Listeners
from ambient.errors import InvalidInput, KernelError, Unavailable
from ambient.netns import entered

Loader = Literal["auto", "bcc", "object"]
Via = Literal["tcx", "clsact"]
"""How programs come onto an interface: TCX from 6.6, before that filters."""

LOAD_SECONDS: Final = 180
"""How long a loader may take before it is ended: many times what it takes on a node that is busy."""

SEED_SIZE: Final = 16
"""Octets of what bpf/maps/seed.h holds."""

log = logging.getLogger("ambient.datapath")


@dataclass(frozen=True, slots=True)
class Loaded:
    """`loader`: which one; `version`: of the sources; `reused`: these programs were there already; `listeners`: which
    of both forms of them."""

    loader: Literal["bcc", "object"]
    version: str
    reused: bool
    listeners: Listeners


@dataclass(frozen=True, slots=True)
class Attachment:
    """One program and where it is: an ifindex, for `pod_lookup` the inode of the namespace; 0 when that is gone.
    `ours`: the link runs the program that is loaded under that name, not somebody else's."""

    program: str
    target: int
    ours: bool = True

    @property
    def alive(self) -> bool:
        return self.target != 0 and self.ours


def load(
    bpffs: Path,
    loader: Loader = "auto",
    checkpoint: Checkpoint = no_checkpoint,
    listeners: Listeners | None = None,
) -> Loaded:
    """Have the programs of this version pinned below `bpffs`, and every link there run them; of both forms the one that
    this kernel takes, or `listeners`.

    Rows and links stay, also those of a version with other layouts, older or newer. Raises Unavailable when the loader
    is not installed, KernelError when the kernel refuses or what is there cannot be carried over; the version that was
    there goes on then.
    """
    chosen = _choose(loader)
    directory = sources.source_directory()
    tag = sources.version(directory)
    form = listeners or tc_sockets.listeners()
    ensure_bpffs(bpffs)
    for name in (MAPS, PROGRAMS, PODS):
        (bpffs / name).mkdir(parents=True, exist_ok=True)
    with _locked(bpffs):
        finish(bpffs, checkpoint)
        for present in (bpffs / PROGRAMS).iterdir():
            wrong = repair_pins(bpffs, present)
            if wrong:
                log.error("maps pinned as %s were not those of our programs: pinned again", ", ".join(wrong))
        sound = is_as_written(bpffs)
        if not sound:
            log.error("the maps below %s are not laid out as was written down: loading again", bpffs)
        final = bpffs / PROGRAMS / f"{tag}-{form}-{chosen}"
        reused = final.is_dir() and sound
        if reused:
            switch_links(bpffs, final)
        else:
            with _source(chosen, directory, tag, form) as source:
                stage(bpffs, final.name, partial(_load_into, chosen, source), checkpoint)
            finish(bpffs, checkpoint)
            with Maps.open(bpffs) as tables:
                kept = tables.config.options() & ~Option.MARK_ALONE
                tables.config.set(kept if cgroups.mount_point() else kept | Option.MARK_ALONE)
    return Loaded(chosen, tag, reused, form)


def _choose(loader: Loader) -> Literal["bcc", "object"]:
    if loader == "auto":
        return "bcc" if sources.bcc_installed() else "object"
    if loader == "bcc" and not sources.bcc_installed():
        raise Unavailable("no bcc", "python3-bpfcc", "install it with linux-libc-dev, or use the object loader")
    return loader


@contextmanager
def _locked(bpffs: Path) -> Iterator[None]:
    descriptor = os.open(bpffs, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def _source(loader: Literal["bcc", "object"], directory: Path, tag: str, form: Listeners) -> Iterator[dict[str, str]]:
    """What this loader is given."""
    if loader == "bcc":
        yield {"sources": str(directory), "listeners": form}
    else:
        with _object(directory, tag, form) as built:
            yield {"object": str(built)}


def _load_into(loader: Literal["bcc", "object"], source: dict[str, str], maps: Path, programs: Path) -> None:
    _run_loader(loader, {**source, "maps": str(maps), "programs": str(programs)})
    _put_seed(maps / "seed")
    differences = btf.differences(btf.parse(bpfinfo.program_types(programs / HOOKS[0].program)))
    if differences:
        raise KernelError("the programs and ambient/datapath/layout.py differ", loader, "; ".join(differences))


def _put_seed(path: Path) -> None:
    """A random one, where there is none yet."""
    table, only = bpfsys.Map(path, 4, SEED_SIZE), bytes(4)
    try:
        if not any(table.get(only) or b""):
            table.put(only, secrets.token_bytes(SEED_SIZE))
    finally:
        table.close()


def _run_loader(loader: str, job: dict[str, str]) -> None:
    """In a process of its own, which sees our package and, for bcc, the distribution's bcc and nothing else of it."""
    with tempfile.TemporaryDirectory(prefix="amb-loader-") as path:
        bcc = sources.bcc_installed()
        if loader == "bcc" and bcc is not None:
            Path(path, "bcc").symlink_to(bcc)
        ours = Path(__file__).resolve().parents[2]
        result = subprocess.run(
            [sys.executable, "-m", f"ambient.datapath.load_{loader}", json.dumps(job)],
            env={**os.environ, "PYTHONPATH": f"{ours}:{path}", "PYTHONWARNINGS": "ignore"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=LOAD_SECONDS,
            check=False,
        )
    if result.returncode != 0:
        log = (result.stderr + result.stdout).strip()
        raise KernelError("cannot load the eBPF programs", f"{loader} loader, exit {result.returncode}", log[-4000:])


@contextmanager
def _object(directory: Path, tag: str, form: Listeners) -> Iterator[Path]:
    """The prebuilt object of this version, or one built now where clang is installed."""
    prebuilt = sources.object_path(directory, tag, form)
    if prebuilt.exists():
        yield prebuilt
        return
    with tempfile.TemporaryDirectory(prefix="amb-object-") as path:
        built = Path(path, prebuilt.name)
        build_object(directory, built, form)
        yield built


def build_object(directory: Path, target: Path, form: Listeners) -> None:
    """Compile the sources with plain clang. Raises Unavailable without clang, InvalidInput when they do not compile."""
    clang = shutil.which("clang")
    if clang is None:
        raise Unavailable("no eBPF object", str(target), "it was not shipped, and clang is not installed to build it")
    command = [clang, "-O2", "-g", "-Wall", "-Wextra", "-Werror", "-target", "bpf"]
    command += [f"-D{NAMED_MACRO}"] if form == "named" else []
    command += ["-I", str(sources.architecture_includes()), "-c", str(directory / sources.MAIN), "-o", str(target)]
    result = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if result.returncode != 0:
        raise InvalidInput("the eBPF sources do not compile", str(directory), result.stderr.strip())


def _current(bpffs: Path) -> Path:
    try:
        return next((bpffs / PROGRAMS).iterdir())
    except (FileNotFoundError, StopIteration):
        raise Unavailable("no datapath is loaded", str(bpffs), "call load first") from None


def _attach(bpffs: Path, netns_fd: int, pod_uid: str, interfaces: dict[Side, str], via: Via) -> tuple[Path, ...]:
    if not pod_uid or "/" in pod_uid or pod_uid.startswith("."):
        raise InvalidInput("not a pod uid", repr(pod_uid), "it becomes the name of a directory")
    programs = _current(bpffs)
    pins = bpffs / PODS / pod_uid
    pins.mkdir(parents=True, exist_ok=True)
    with entered(netns_fd):
        return tuple(
            _attach_one(programs, pins, hook, netns_fd, interfaces[hook.side], via)
            for hook in HOOKS
            if hook.side in interfaces
        )


def _attach_one(programs: Path, pins: Path, hook: Hook, netns_fd: int, interface: str, via: Via) -> Path:
    """In the namespace already. `interface` is ignored where the hook is the namespace itself."""
    pin = pins / hook.program
    where = f"{hook.program} of pod {pins.name} on {interface or 'its namespace'}"
    netns = os.fstat(netns_fd).st_ino
    if hook.attach is Attach.SK_LOOKUP:
        return _attach_link(programs, pin, hook, netns_fd, netns, where)
    try:
        ifindex = socket.if_nametoindex(interface)
    except OSError as error:
        raise KernelError("no such interface", where, str(error)) from error
    if via == "tcx":
        return _attach_link(programs, pin, hook, ifindex, ifindex, where)
    place = clsact.Place(netns, ifindex, hook.attach, pins.name)
    clsact.attach(place, programs / hook.program, where)
    with suppress(FileNotFoundError):
        if clsact.place_of(pin) == place:
            return pin
        hooked.take_off(pin)
    pin.symlink_to(str(place))
    return pin


def _attach_link(programs: Path, pin: Path, hook: Hook, target: int, identity: int, where: str) -> Path:
    if _is_on(pin, identity):
        hooked.put_program(pin, programs / hook.program)
        return pin
    with bpfsys.opened(programs / hook.program) as program:
        tcx = hook.attach is not Attach.SK_LOOKUP
        link = bpfsys.create_link(program, target, hook.attach, where, before_all=tcx)
    try:
        with suppress(FileNotFoundError):
            hooked.take_off(pin)  # of a dead or another target, or a filter that did the same
        bpfsys.pin(link, pin)
    finally:
        os.close(link)
    return pin


def _is_on(pin: Path, identity: int) -> bool:
    """It is a link, on that interface or namespace."""
    with suppress(FileNotFoundError):
        return clsact.place_of(pin) is None and bpfsys.link_target(pin) == identity
    return False


def attach_pod(bpffs: Path, netns_fd: int, pod_uid: str, ifname: str = "eth0", via: Via = "tcx") -> tuple[Path, ...]:
    """Attach the programs inside a pod and pin their links; what is attached already stays.

    The rows of all the pod's addresses must be there. Raises Unavailable, InvalidInput or KernelError; what was
    attached before the failure stays, for `detach_pod` or the next try.
    """
    return _attach(bpffs, netns_fd, pod_uid, {"netns": "", "lo": "lo", "pod": ifname}, via)


def attach_host(bpffs: Path, netns_fd: int, pod_uid: str, ifname: str, via: Via = "tcx") -> tuple[Path, ...]:
    """Attach the two programs on the host's end of the pod's veth, in the node's namespace; else as `attach_pod`."""
    return _attach(bpffs, netns_fd, pod_uid, {"host": ifname}, via)


def attach_node(bpffs: Path, cgroup: Path) -> bool:
    """Attach the programs that every socket of the node passes, on its root control group, and pin their links. False:
    all were there, with our programs. Raises Unavailable or KernelError."""
    programs = _current(bpffs)
    (bpffs / NODE).mkdir(exist_ok=True)
    missing = False
    for hook in NODE_HOOKS:
        pin, program = bpffs / NODE / hook.program, programs / hook.program
        on = _is_on(pin, cgroup.stat().st_ino & 0xFFFFFFFF)
        if on and hooked.program(pin) == bpfsys.program_id(program):
            continue
        missing = True
        if on:
            hooked.put_program(pin, program)
            continue
        group = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with bpfsys.opened(program) as descriptor:
                link = bpfsys.create_link(descriptor, group, hook.attach, str(cgroup), before_all=False)
        finally:
            os.close(group)
        try:
            with suppress(FileNotFoundError):
                hooked.take_off(pin)
            bpfsys.pin(link, pin)
        finally:
            os.close(link)
    return missing


def detach_node(bpffs: Path) -> None:
    """Take them off; fine when there are none."""
    for pin in (bpffs / NODE).glob("*"):
        hooked.take_off(pin)


def attached(bpffs: Path) -> dict[str, tuple[Attachment, ...]]:
    """What is attached, by pod uid; dead links are listed with target 0."""
    found: dict[str, list[Attachment]] = {}
    loaded = {path.name: bpfsys.program_id(path) for path in (bpffs / PROGRAMS).glob("*/*")}
    for pin in sorted((bpffs / PODS).glob("*/*")):
        with suppress(FileNotFoundError):
            ours = loaded.get(pin.name) in (None, hooked.program(pin))
            found.setdefault(pin.parent.name, []).append(Attachment(pin.name, hooked.target(pin), ours))
    return {uid: tuple(attachments) for uid, attachments in found.items()}


def detach_pod(bpffs: Path, pod_uid: str) -> None:
    """Take the programs of a pod off, on both sides; fine when there are none. They are off when this returns.

    Links that another version of this program pinned, with hooks that we do not know, go last.
    """
    pins = bpffs / PODS / pod_uid
    ours = [hook.program for hook in reversed(HOOKS)]
    with suppress(FileNotFoundError):
        ours += sorted({pin.name for pin in pins.iterdir()} - set(ours))
    for program in ours:
        with suppress(FileNotFoundError):
            hooked.take_off(pins / program)
    with suppress(FileNotFoundError):
        pins.rmdir()


def unload(bpffs: Path) -> None:
    """Remove every link, program and map below `bpffs` and the directory itself; nothing happens when it is gone."""
    for pod in attached(bpffs):
        detach_pod(bpffs, pod)
    detach_node(bpffs)
    shutil.rmtree(bpffs, ignore_errors=False, onerror=_missing_is_fine)


def _missing_is_fine(_function: object, _path: str, info: tuple[object, BaseException, object]) -> None:
    if not isinstance(info[1], FileNotFoundError):
        raise info[1]
