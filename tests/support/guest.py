"""Another kernel under this machine's own root: a command run in qemu.

By software alone, also where there is a /dev/kvm: one that cannot be used (in a virtual machine) may hang, not fail.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ambient.errors import Unavailable
from tests.support.guest_root import BUSYBOX, RESULT, initramfs
from tests.support.kernel_packages import ROOT, Unpacked

QEMU: Final = "qemu-system-x86_64"
MEMORY_MB: Final = 2048
_SLOW: Final = "no_timer_check"
"""A kernel on a starved machine takes its timer for broken and panics, unless it is told not to look."""
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, slots=True)
class Ran:
    """`code`: of the command, None where the guest ended without telling; `said`: by the kernel, then the command."""

    code: int | None
    said: str


@dataclass(frozen=True, slots=True)
class Guest:
    """`shared`: a folder that the guest sees as `guest_root.RESULT`, for what a run leaves behind."""

    kernel: Unpacked
    shared: Path
    _initramfs: Path

    def run(self, words: Sequence[str], seconds: float, *, cores: int = 1) -> Ran:
        """Boot, run the command in the clone's folder, power off. Who takes longer is ended and has no code."""
        said, code, console = (self.shared / name for name in ("said", "code", "console"))
        for path in (said, code, console):
            path.unlink(missing_ok=True)
        (self.shared / "job").write_text(
            f"export PATH={_PATH} HOME=/root LANG=C.UTF-8\ncd {shlex.quote(str(ROOT))}\n"
            f"{shlex.join(words)} >{RESULT}/said 2>&1 </dev/null\necho $? >{RESULT}/code\n{BUSYBOX} poweroff -f\n"
        )
        try:
            done = subprocess.run(
                self._machine(cores, console),
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=seconds,
                check=False,
            )
            complaint = done.stderr.decode(errors="replace")
        except subprocess.TimeoutExpired:
            complaint = f"ended after {seconds:.0f} s\n"
        told = _text(code).strip()
        return Ran(int(told) if told else None, complaint + _text(console) + _text(said))

    def _machine(self, cores: int, console: Path) -> list[str]:
        share = "local,security_model=none,multidevs=remap"
        return [
            *(QEMU, "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", str(cores)),
            *("-m", str(MEMORY_MB), "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
            *("-serial", f"file:{console}", "-kernel", str(self.kernel.image), "-initrd", str(self._initramfs)),
            *("-append", f"console=ttyS0 quiet panic=-1 mitigations=off {_SLOW}"),
            *("-virtfs", f"{share},path=/,mount_tag=root,readonly=on"),
            *("-virtfs", f"{share},path={self.shared},mount_tag=result"),
        ]


def _text(path: Path) -> str:
    return path.read_text(errors="replace") if path.exists() else ""


@contextmanager
def guest(kernel: Unpacked) -> Iterator[Guest]:
    """Raises Unavailable without qemu."""
    if shutil.which(QEMU) is None:
        raise Unavailable("no qemu", QEMU, "`./dev test kernels` and `./dev campaign kernels` install it")
    with tempfile.TemporaryDirectory(prefix="amb-guest-") as path:
        shared = Path(path, "shared")
        shared.mkdir()
        packed = Path(path, "initramfs")
        packed.write_bytes(initramfs(kernel))
        yield Guest(kernel, shared, packed)
