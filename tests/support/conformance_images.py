"""The images of the conformance suite's pods, made of programs that are built here, under the names it asks for."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from types import MappingProxyType
from typing import Final

from daemonset.image.oci import Image, make_layer, write_archive
from tests.cluster.lab import programs
from tests.cluster.lab.plan import STATE
from tests.cluster.lab.processes import run

PLACE: Final = STATE / "conformance"


def wanted() -> list[str]:
    """References of the images that the suite's manifests name."""
    programs.ready(programs.CONFORMANCE)
    said = subprocess.run([programs.CONFORMANCE.path, "-images"], capture_output=True, text=True, check=True)
    return said.stdout.split()


def archives() -> list[Path]:
    """One per image; made anew, for they are small. Raises SystemExit where the suite wants what nobody can make."""
    programs.ready(programs.ECHO_BASIC, programs.ECHO_SERVER, programs.ECHO_CLIENT)
    PLACE.mkdir(parents=True, exist_ok=True)
    return [_made(reference) for reference in wanted()]


def _made(reference: str) -> Path:
    name, _, version = reference.rpartition("/")[2].partition(":")
    if name not in _IMAGES:
        raise SystemExit(f"conformance: the suite wants the image {reference}, and there is no telling how to make it")
    fill, entry = _IMAGES[name]
    target = PLACE / f"{name}-{version}.tar"
    with TemporaryDirectory(prefix="image-", dir=PLACE) as place:
        root = Path(place, "root")
        (root / "tmp").mkdir(parents=True)
        (root / "tmp").chmod(0o1777)
        fill(root)
        layer = make_layer(root, Path(place, "layer.tar"))
        write_archive(Image(reference=reference, layers=(layer,), entry=(entry,)), target)
    return target


def _basic(root: Path) -> None:
    shutil.copy(programs.ECHO_BASIC.path, root / "echo-basic")


def _advanced(root: Path) -> None:
    """Server and client, and the certificate that the server is started with."""
    bin_ = root / "usr/local/bin"
    bin_.mkdir(parents=True)
    shutil.copy(programs.ECHO_SERVER.path, bin_ / "server")
    shutil.copy(programs.ECHO_CLIENT.path, bin_ / "client")
    keys = ("-keyout", str(root / "cert.key"), "-out", str(root / "cert.crt"))
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    run(
        "openssl",
        "req",
        "-x509",
        *curve,
        *keys,
        "-days",
        "365",
        "-subj",
        "/CN=echo",
        "-addext",
        "subjectAltName=DNS:echo",
    )
    (root / "cert.key").chmod(0o644)


_IMAGES: Final[Mapping[str, tuple[Callable[[Path], None], str]]] = MappingProxyType(
    {
        "echo-basic": (_basic, "/echo-basic"),
        "echo-advanced": (_advanced, "/usr/local/bin/server"),
        "coredns": (_basic, "/echo-basic"),
    }
)
"""By the name in the reference: what is in it, and what it runs. Of the DNS server, which only tests of UDPRoutes
ask, nothing is wanted but that it runs."""
