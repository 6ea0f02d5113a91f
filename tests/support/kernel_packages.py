"""Kernels that Debian's archive offers, fetched through apt and unpacked, none of them installed.

apt is run with lists of its own, one archive line per kernel, so that what this machine has in its own sources does not
matter and nothing of it changes. What was unpacked stays below `build/kernels` until somebody deletes it.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ambient.errors import Unavailable

ROOT: Final = Path(__file__).resolve().parents[2]
STORE: Final = ROOT / "build" / "kernels"
MIRROR: Final = "http://deb.debian.org"
KEYRING: Final = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
FETCH_SECONDS: Final = 300
_PACKAGE: Final = "linux-image-amd64"
_DONE: Final = "complete"


@dataclass(frozen=True, slots=True)
class Kernel:
    """`series`: what its packages begin with; `archive`, `suite`: where."""

    series: str
    archive: str
    suite: str


KERNELS: Final = (
    Kernel("5.10", "debian-security", "bullseye-security"),
    Kernel("6.1", "debian-security", "bookworm-security"),
    Kernel("6.12", "debian", "trixie"),
    Kernel("7.3", "debian", "trixie-backports"),
)
"""The floor, the last without TCX, the first Debian with it, the newest."""


@dataclass(frozen=True, slots=True)
class Unpacked:
    """`release`: as `uname -r` says; `image`: what boots; `base`: has `lib/modules/<release>`."""

    release: str
    image: Path
    base: Path

    def modules_for(self, *names: str) -> list[Path]:
        """The files of these modules and all they need, in the order of loading; what is built in has none."""
        found: dict[Path, None] = {}
        for name in names:
            words = ("modprobe", "-d", str(self.base), "-S", self.release, "--show-depends", name)
            for line in _run(words, f"no module {name} in Linux {self.release}").splitlines():
                if line.startswith("insmod "):
                    found[Path(line.split()[1])] = None
        return list(found)


def kernel_of(series: str) -> Kernel:
    """Raises Unavailable for one that the matrix does not have."""
    for kernel in KERNELS:
        if kernel.series == series:
            return kernel
    raise Unavailable("no such kernel in the matrix", series, ", ".join(kernel.series for kernel in KERNELS))


def unpacked(kernel: Kernel) -> Unpacked:
    """Fetched where it is not there yet. Raises Unavailable when it cannot be had, naming what apt says."""
    if platform.machine() != "x86_64":
        raise Unavailable("no kernel matrix", platform.machine(), "its kernels are Debian's for x86-64")
    base = STORE / kernel.series
    if not (base / _DONE).exists():
        shutil.rmtree(base, ignore_errors=True)
        base.mkdir(parents=True)
        _fetch(kernel, base)
        (base / _DONE).touch()
    release = next((base / "lib" / "modules").iterdir()).name
    images = [base / "boot" / f"vmlinuz-{release}", base / "lib" / "modules" / release / "vmlinuz"]
    return Unpacked(release, next(image for image in images if image.exists()), base)


def _fetch(kernel: Kernel, base: Path) -> None:
    where = base / "apt"
    for folder in ("lists/partial", "cache/archives/partial", "packages"):
        (where / folder).mkdir(parents=True)
    line = f"deb [arch=amd64 signed-by={KEYRING}] {MIRROR}/{kernel.archive} {kernel.suite} main\n"
    (where / "sources.list").write_text(line)
    options = [
        *("-o", f"Dir::Etc::sourcelist={where / 'sources.list'}", "-o", "Dir::Etc::sourceparts=-"),
        *("-o", f"Dir::State::lists={where / 'lists'}", "-o", f"Dir::Cache={where / 'cache'}"),
        *("-o", "APT::Sandbox::User=root", "-o", "Acquire::Retries=3", "-o", "Acquire::http::Timeout=30"),
    ]
    failed = f"cannot fetch Linux {kernel.series} from {kernel.suite}"
    _run(("apt-get", "-q", *options, "-o", "APT::Update::Error-Mode=any", "update"), failed)
    tree = _run(("apt-cache", *options, "depends", "--recurse", "--important", _PACKAGE), failed)
    packages = [name for name in tree.splitlines() if name.startswith("linux-") and f"-{kernel.series}." in name]
    if not packages:
        raise Unavailable(failed, MIRROR, f"{_PACKAGE} of {kernel.suite} is another series now:\n{tree[:1000]}")
    _run(("apt-get", "-q", *options, "download", *packages), failed, where / "packages")
    for archive in sorted((where / "packages").glob("*.deb")):
        _run(("dpkg-deb", "-x", str(archive), str(base)), failed)
    shutil.rmtree(where)
    if not (base / "lib").exists():
        (base / "lib").symlink_to("usr/lib")
    _run(("depmod", "-b", str(base), next((base / "lib" / "modules").iterdir()).name), failed)


def _run(words: Sequence[str], failed: str, folder: Path | None = None) -> str:
    try:
        done = subprocess.run(
            words,
            cwd=folder,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=FETCH_SECONDS,
            check=False,
        )
    except (FileNotFoundError, subprocess.TimeoutExpired) as error:
        raise Unavailable(failed, words[0], str(error)) from error
    if done.returncode != 0:
        raise Unavailable(failed, words[0], (done.stderr or done.stdout).strip()[-1500:])
    return done.stdout
