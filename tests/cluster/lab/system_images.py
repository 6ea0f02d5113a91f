"""The images every node has: pause, CoreDNS, and `tools`, made of this machine's own programs and their libraries."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from daemonset.image.oci import Image, make_layer, write_archive
from tests.cluster.lab import programs
from tests.cluster.lab.configuration import PAUSE
from tests.cluster.lab.plan import STATE
from tests.cluster.lab.processes import run

IMAGES: Final = STATE / "images"
TOOLS: Final = "localhost/tools:1"
COREDNS: Final = "localhost/coredns:1"
_TOOLS: Final = (
    *("bash", "curl", "ip", "ss", "nft", "tcpdump", "openssl", "cat", "ls", "sleep", "true", "env", "id", "head"),
    *("grep", "sed", "cp", "mkdir", "rm", "date", "timeout", "tail", "wc", "getent"),
)
_LATE: Final = ("libnss_dns.so.2", "libnss_files.so.2", "libresolv.so.2")
"""What the C library loads by name when it is asked for a host."""
_PAUSE: Final = r"""
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>
static void end(int number) { (void)number; _exit(0); }
static void reap(int number) { (void)number; while (waitpid(-1, 0, WNOHANG) > 0); }
int main(void) {
    signal(SIGINT, end); signal(SIGTERM, end); signal(SIGCHLD, reap);
    for (;;) pause();
}
"""


def ready() -> list[Path]:
    """The archives, made where they are missing."""
    IMAGES.mkdir(parents=True, exist_ok=True)
    return [
        made("pause", _pause, Image(reference=PAUSE, layers=(), entry=("/pause",), user="65535:65535")),
        made("coredns", _coredns, Image(reference=COREDNS, layers=(), entry=("/coredns",))),
        made("tools", _tools, Image(reference=TOOLS, layers=(), command=("bash",))),
    ]


def made(name: str, fill: Callable[[Path], None], image: Image) -> Path:
    """The archive of an image whose files `fill` puts into an empty folder, made where it is missing."""
    target = IMAGES / f"{name}.tar"
    if not target.exists():
        with TemporaryDirectory(prefix="amb-image-", dir=IMAGES) as place:
            root = Path(place, "root")
            root.mkdir()
            fill(root)
            layer = make_layer(root, Path(place, "layer.tar"))
            write_archive(
                Image(
                    reference=image.reference,
                    layers=(layer,),
                    entry=image.entry,
                    command=image.command,
                    user=image.user,
                ),
                target,
            )
    return target


def _pause(root: Path) -> None:
    source = root / "pause.c"
    source.write_text(_PAUSE)
    run("clang", "-Os", "-static", "-s", "-o", root / "pause", source)
    source.unlink()


def _coredns(root: Path) -> None:
    shutil.copy(programs.COREDNS.path, root / "coredns")


def _tools(root: Path) -> None:
    skeleton(root)
    for tool in _TOOLS:
        found = shutil.which(tool)
        if found is None:
            raise SystemExit(f"cluster: {tool} is not installed here")
        put(root, found, tool)
    (root / "usr/bin/sh").symlink_to("bash")


def skeleton(root: Path) -> None:
    """The folders and files that every program looks for."""
    for folder in ("tmp", "etc", "proc", "sys", "dev", "run", "root", "var"):
        (root / folder).mkdir()
    (root / "tmp").chmod(0o1777)
    (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/bash\n")
    (root / "etc/group").write_text("root:x:0:\n")
    (root / "etc/nsswitch.conf").write_text("hosts: files dns\n")
    for folder in ("bin", "sbin", "lib", "lib64"):
        (root / "usr" / folder).mkdir(parents=True)
        (root / folder).symlink_to(f"usr/{folder}")


def put(root: Path, program: str, name: str) -> None:
    """A program of this machine, under a name in /usr/bin, with its libraries."""
    shutil.copy2(Path(program).resolve(), root / "usr/bin" / name)
    said = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
    for library in re.findall(r"(/\S+\.so\S*)", said):
        _copied(root, library)
        for late in (Path(library).with_name(name) for name in _LATE):
            if late.exists():
                _copied(root, str(late))


def _copied(root: Path, library: str) -> None:
    place = library if library.startswith("/usr/") else f"/usr{library}"
    target = root / place.lstrip("/")
    if not target.exists():
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(Path(library).resolve(), target)
