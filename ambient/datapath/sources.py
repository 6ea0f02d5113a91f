"""Finding the C sources, naming their version, and preparing what each compiler wants of them.

bcc rewrites only the text that it is given, not what that text includes, so our own includes are inlined for it; and it
wants a kernel header tree, which is made here of links to the system's linux-libc-dev plus five small headers of ours.
"""

from __future__ import annotations

import hashlib
import platform
import re
from pathlib import Path
from typing import Final

from ambient.datapath.tc_sockets import Listeners
from ambient.errors import Unavailable

MAIN: Final = "ambient.bpf.c"
_INCLUDE: Final = re.compile(r'^\s*#include\s+"([^"]+)"\s*$')
_SYSTEM: Final = Path("/usr/include")
_EMPTY: Final = ("bpf.h", "bpf_common.h")


def source_directory() -> Path:
    """The folder `bpf/`: inside the installed package, or beside it in a checkout. Raises Unavailable."""
    package = Path(__file__).resolve().parent
    for candidate in (package / "bpf", package.parents[1] / "bpf"):
        if (candidate / MAIN).exists():
            return candidate
    raise Unavailable("no eBPF sources", str(package), f"neither the package nor the checkout has bpf/{MAIN}")


def flatten(path: Path, seen: set[Path] | None = None) -> str:
    """The text of a source with our own includes inlined, each once; system includes are left."""
    seen = set() if seen is None else seen
    lines = []
    for line in path.read_text().splitlines():
        match = _INCLUDE.match(line)
        if match is None:
            lines.append(line)
            continue
        included = (path.parent / match[1]).resolve()
        if included not in seen:
            seen.add(included)
            lines.append(flatten(included, seen))
    return "\n".join(lines) + "\n"


def version(directory: Path) -> str:
    """Twelve hex digits that change with any byte of the sources."""
    return hashlib.sha256(flatten(directory / MAIN).encode()).hexdigest()[:12]


def object_path(directory: Path, tag: str, listeners: Listeners) -> Path:
    """Where the object of that version is, when it was built."""
    return directory / f"ambient-{tag}-{listeners}.bpf.o"


def architecture_includes() -> Path:
    """The system's <asm/...> of this machine (multi-arch), as a directory for -I."""
    return _SYSTEM / f"{platform.machine()}-linux-gnu"


def bcc_installed() -> Path | None:
    """The distribution's bcc package, usable by any interpreter. PyPI's `bcc` is something else, never looked for."""
    path = Path("/usr/lib/python3/dist-packages/bcc")
    return path if (path / "libbcc.py").exists() and (_SYSTEM / "linux/if_ether.h").exists() else None


def make_header_tree(directory: Path, shims: Path) -> None:
    """Fill an empty directory with what bcc takes for kernel headers: enough for programs that only see packets.

    bcc brings its own bpf.h; a second one would define everything twice, hence the empty files.
    """
    include = directory / "include"
    uapi = include / "uapi"
    for path in (include / "linux", uapi / "linux", include / "asm"):
        path.mkdir(parents=True)
    for name in _EMPTY:
        (uapi / "linux" / name).touch()
        (include / "linux" / name).touch()
    for header in sorted((_SYSTEM / "linux").glob("*.h")):
        _link(uapi / "linux" / header.name, header)
        _link(include / "linux" / header.name, shims / "linux" / header.name, header)
    for shim in sorted((shims / "linux").glob("*.h")):
        _link(include / "linux" / shim.name, shim)
    for header in sorted((architecture_includes() / "asm").glob("*.h")):
        _link(include / "asm" / header.name, shims / "asm" / header.name, header)
    for shim in sorted((shims / "asm").glob("*.h")):
        _link(include / "asm" / shim.name, shim)
    (include / "asm-generic").symlink_to(_SYSTEM / "asm-generic")
    (include / "linux" / "byteorder").symlink_to(_SYSTEM / "linux" / "byteorder")


def _link(link: Path, *targets: Path) -> None:
    """Link to the first target that exists, unless something is there already."""
    target = next((path for path in targets if path.exists()), None)
    if target is not None and not link.exists():
        link.symlink_to(target)
