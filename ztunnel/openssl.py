"""Which OpenSSL ztunnel runs on: the newest that its interpreter's ssl module can use.

Debian's is years behind in speed: its AES does not use the wider vectors, and it searches for parameters by name at
every turn. Releases of OpenSSL 3 are compatible with each other in their binary interface, so a newer one only has to
be found first by the dynamic linker. Where there is none, or it does not work, the interpreter's own stays. What was
found is remembered beside the links for as long as every file that it rests on is the same: a restart asks nobody.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

SETTING: Final = "ZTUNNEL_OPENSSL"
"""Environment variable: "system" keeps the interpreter's own, a path is a folder that has libssl and libcrypto."""
PACKAGE: Final = "psycopg_binary"
"""The package of PyPI whose wheels carry a current OpenSSL; it is never imported."""
_NAMES: Final = ("libssl", "libcrypto")
_RELEASES: Final = ".so.3"
"""What the linker calls any OpenSSL 3."""
_SEARCH: Final = "LD_LIBRARY_PATH"
_ASK: Final = "import _hashlib, ssl; print(*ssl.OPENSSL_VERSION_INFO)"
_PATIENCE_S: Final = 30.0
_VERDICT: Final = "verdict.json"


def environment(env: Mapping[str, str], run_dir: str, path: list[str] | None = None) -> dict[str, str]:
    """What has to be set for a process that is to use the newer library; {} when nothing has to.

    Links to the libraries are put into a folder below `run_dir`. `path` is where packages are looked for. Raises
    ValueError when the setting names a folder without them, OSError when the links cannot be made.
    """
    choice = env.get(SETTING, "")
    # Who configures OpenSSL may have modules for it (FIPS), which belong to the release that they came with.
    if choice == "system" or (not choice and env.get("OPENSSL_CONF")):
        return {}
    links = os.path.join(run_dir, "openssl")
    search = env.get(_SEARCH, "")
    if search.split(":")[0] == links:
        return {}
    found = Path(choice) if choice else _packaged(sys.path if path is None else path)
    libraries = _libraries(found) if found is not None else []
    if choice and not libraries:
        raise ValueError(f"{SETTING}: {choice!r}: expected system or a folder with {' and '.join(_NAMES)}{_RELEASES}")
    if not libraries:
        return {}
    wanted = {_SEARCH: f"{links}:{search}" if search else links}
    newer = _remembered(Path(links), libraries, search)
    if newer is None:
        _link(Path(links), libraries)
        # Not needed by a supervisor that has nothing to choose from.
        import ssl

        release = _release({**env, **wanted})
        newer = release > ssl.OPENSSL_VERSION_INFO
        if release:
            _remember(Path(links), libraries, search, newer)
    return wanted if newer else {}


def _remembered(links: Path, libraries: list[Path], search: str) -> bool | None:
    """Whether `libraries` are newer than the interpreter's own, as was found earlier; None: nobody knows."""
    try:
        known = json.loads((links / _VERDICT).read_bytes())
        linked = all(
            (links / f"{name}{_RELEASES}").readlink() == one for name, one in zip(_NAMES, libraries, strict=True)
        )
        same = known["rests_on"] == _rests_on(libraries, known["own"], search)
        return bool(known["newer"]) if linked and same else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _remember(links: Path, libraries: list[Path], search: str, newer: bool) -> None:
    own = _loaded()
    fresh = links / f"{_VERDICT}.{os.getpid()}"
    with suppress(OSError):
        verdict = {"newer": newer, "own": own, "rests_on": _rests_on(libraries, own, search)}
        fresh.write_text(json.dumps(verdict))
        fresh.replace(links / _VERDICT)


def _rests_on(libraries: Iterable[Path], own: Iterable[str], search: str) -> list[object]:
    """What has to be the same for a verdict to hold, as JSON gives it back: who asked, each file. Raises OSError."""
    rests: list[object] = [sys.version, search]
    for path in (sys.executable, *map(str, libraries), *own):
        found = os.stat(path)
        rests.append([path, found.st_ino, found.st_size, found.st_mtime_ns])
    return rests


def _loaded() -> list[str]:
    """The files of OpenSSL that this process runs on; [] where it is built in, or where nobody says."""
    try:
        lines = Path("/proc/self/maps").read_text().splitlines()
    except OSError:
        return []
    paths = {line.split(maxsplit=5)[5] for line in lines if "/" in line}
    return sorted(path for path in paths if os.path.basename(path).startswith(_NAMES))


def _packaged(path: list[str]) -> Path | None:
    """The folder of the libraries that came with the package."""
    folders = (Path(entry or ".") / f"{PACKAGE}.libs" for entry in path)
    return next((folder for folder in folders if folder.is_dir()), None)


def _libraries(folder: Path) -> list[Path]:
    """Both libraries, whatever a packager has added to their names; [] when one is missing or there are several."""
    found = []
    for name in _NAMES:
        files = [file for file in folder.glob(f"{name}*{_RELEASES}*") if file.name[len(name)] in ".-"]
        if len({file.resolve() for file in files}) != 1:
            return []
        found.append(files[0].resolve())
    return found


def _link(folder: Path, libraries: list[Path]) -> None:
    """Each under the name that the linker asks for and under its own, by which they ask for each other."""
    os.makedirs(folder.parent, mode=0o700, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    for name, library in zip(_NAMES, libraries, strict=True):
        for link in {f"{name}{_RELEASES}", library.name}:
            fresh = folder / f"{link}.{os.getpid()}"
            fresh.unlink(missing_ok=True)
            fresh.symlink_to(library)
            fresh.replace(folder / link)


def _release(env: Mapping[str, str]) -> tuple[int, ...]:
    """What a new process's ssl module says that it runs on; () when it does not even load."""
    import subprocess

    argv = [sys.executable, "-I", "-S", "-c", _ASK]
    try:
        said = subprocess.run(argv, env=dict(env), capture_output=True, timeout=_PATIENCE_S, check=True).stdout
        return tuple(int(word) for word in said.split())
    except (OSError, ValueError, subprocess.SubprocessError):
        return ()


if __name__ == "__main__":
    # For tests: what the linker's variable has to be, links made below the folder that is named; empty for no change.
    sys.stdout.write(environment(os.environ, sys.argv[1]).get(_SEARCH, "") + "\n")
