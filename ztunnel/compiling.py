"""`python -m ztunnel.compiling [--check]`: compiles the hot modules of a worker with mypyc, into `ztunnel/_compiled`.

The sources stay as they are and run without this. What was compiled is known by digest: nothing is done when nothing
changed, and only the C files that differ are compiled again. Where something is missing (compiler, Python's headers,
mypyc) it says what, and the sources are interpreted.
"""

from __future__ import annotations

import ast
import fcntl
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from ambient.errors import InvalidInput, Unavailable
from ztunnel.compiled import FOLDER, ROOT, abi, digest

HOT: Final = ("ztunnel/hbone", "ztunnel/proxy", "ztunnel/telemetry", "ztunnel/tls")
"""Folders whose modules are compiled."""
ALSO: Final = ("ambient/model/matching.py", "ambient/model/rule_index.py", "ztunnel/dns/stream.py")
LEFT: Final = MappingProxyType(
    {
        "ztunnel/proxy/loop.py": "derives from asyncio's",
        "ztunnel/proxy/sockets.py": "system calls are all it does, and stand-ins derive from it",
        "ztunnel/telemetry/counters.py": "its totals are referred to weakly",
        "ztunnel/telemetry/fields.py": "its values derive from str and tuple",
        "ztunnel/tls/contexts.py": "runs once per certificate",
    }
)
"""Modules of those folders that stay interpreted, and why."""
_COMPILERS: Final = ("gcc", "clang", "cc")
_FLAGS: Final = ("-O2", "-g1", "-fPIC", "-fwrapv", "-DNDEBUG", "-fvisibility=hidden", "-w")
_PARALLEL: Final = max(2, len(os.sched_getaffinity(0)))


def modules(root: Path = ROOT) -> list[str]:
    """Paths of the modules to compile, relative to `root`."""
    found = [path.relative_to(root).as_posix() for folder in HOT for path in (root / folder).glob("*.py")]
    return sorted([name for name in found if name not in LEFT and not name.endswith("/__init__.py")] + list(ALSO))


def sources(compiled: Sequence[str], root: Path = ROOT) -> list[str]:
    """Every file of the project that the compiled ones depend on, themselves included: constants and layouts of
    imported modules become part of the compiled code, and how it is compiled is written in this one."""
    found = {*compiled, "ztunnel/compiling.py"}
    todo = list(compiled)
    while todo:
        for name in _imported(root, todo.pop()):
            if name not in found:
                found.add(name)
                todo.append(name)
    return sorted(found)


def _imported(root: Path, name: str) -> Iterator[str]:
    for node in ast.walk(ast.parse((root / name).read_bytes(), name)):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            candidates = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            candidates = [alias.name for alias in node.names]
        else:
            continue
        for dotted in candidates:
            place = dotted.replace(".", "/")
            for path in (f"{place}.py", f"{place}/__init__.py"):
                if dotted.partition(".")[0] in ("ambient", "ztunnel") and (root / path).is_file():
                    yield path


def wanted(root: Path = ROOT) -> dict[str, str]:
    """Digest by path of everything that a set made now would depend on."""
    return {name: digest(root / name) for name in sources(modules(root), root)}


def current(folder: Path = FOLDER, root: Path = ROOT) -> bool:
    """The set that is there is the one that would be made now."""
    try:
        manifest = json.loads((folder / f"{abi()}.json").read_bytes())
        present = all((folder / path).is_file() for path in manifest["libraries"].values())
        return present and bool(manifest["sources"] == wanted(root))
    except (OSError, ValueError, KeyError, TypeError):
        return False


def compile_all(folder: Path = FOLDER, root: Path = ROOT) -> str:
    """Make the set unless it is there already; says what was done.

    Raises Unavailable with what is missing on this machine, InvalidInput with what cannot be compiled.
    """
    if current(folder, root):
        return "compiled modules are up to date"
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if current(folder, root):
            return "compiled modules are up to date"
        compiler = _compiler()
        depends, paths = wanted(root), modules(root)
        with tempfile.TemporaryDirectory(prefix="new-", dir=folder) as work:
            extensions = _translate(paths, root, Path(work))
            built = _build(extensions, compiler, Path(work), folder / "objects")
            if wanted(root) != depends:
                raise Unavailable("compile", "sources", "they changed meanwhile")
            name = hashlib.sha256(json.dumps([abi(), depends]).encode()).hexdigest()[:16]
            shutil.rmtree(folder / name, ignore_errors=True)
            os.rename(built, folder / name)
        suffix = sysconfig.get_config_var("EXT_SUFFIX")
        libraries = {one.name: f"{name}/{one.name}{suffix}" for one in extensions}
        made_with = f"mypyc {importlib.metadata.version('mypy')}"
        _replace(folder, {"sources": depends, "libraries": libraries, "made_with": made_with})
        for old in folder.iterdir():
            if old.is_dir() and old.name not in (name, "objects"):
                shutil.rmtree(old, ignore_errors=True)
    return f"compiled {len(paths)} modules"


def _replace(folder: Path, manifest: Mapping[str, object]) -> None:
    """Switch to the new set at once."""
    temporary = folder / "manifest.new"
    temporary.write_text(json.dumps(manifest, indent=1) + "\n")
    os.replace(temporary, folder / f"{abi()}.json")


def _compiler() -> str:
    if not Path(sysconfig.get_paths()["include"], "Python.h").is_file():
        raise Unavailable("compile", "Python's headers", "Python.h is not there (package python3-dev)")
    for name in _COMPILERS:
        if found := shutil.which(name):
            return found
    raise Unavailable("compile", "C compiler", f"none of {', '.join(_COMPILERS)} is there")


def _translate(paths: Sequence[str], root: Path, work: Path) -> list[Any]:
    """Python to C in a process of its own (mypyc ends the process where it cannot); the extensions to build."""
    if importlib.util.find_spec("mypyc") is None:
        raise Unavailable("compile", "mypyc", "not installed (it comes with mypy)")
    command = [sys.executable, "-c", _TRANSLATE, str(work), *paths]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InvalidInput("sources that mypyc refuses", "", (done.stdout + done.stderr).strip()[-2000:])
    return [_Extension(*one) for one in json.loads(done.stdout.splitlines()[-1])]


_TRANSLATE: Final = """
import json, sys
from mypyc.build import mypycify
made = mypycify(sys.argv[2:], multi_file=True, target_dir=sys.argv[1])
print()
print(json.dumps([(one.name, one.sources, one.include_dirs) for one in made]))
"""


class _Extension:
    """One shared library: the name it is imported by, its C files, where their headers are."""

    def __init__(self, name: str, files: list[str], headers: list[str]) -> None:
        self.name = name
        self.files = files
        self.headers = headers


def _build(extensions: Sequence[_Extension], compiler: str, work: Path, cache: Path) -> Path:
    """Compile and link; the folder with the libraries."""
    cache.mkdir(exist_ok=True)
    out = work / "out"
    out.mkdir()
    version = subprocess.run([compiler, "--version"], capture_output=True, text=True, check=False).stdout
    headers = hashlib.sha256(version.encode())
    for path in sorted(work.rglob("*.h")):
        headers.update(path.read_bytes())
    suffix = sysconfig.get_config_var("EXT_SUFFIX")
    jobs = [(file, one) for one in extensions for file in one.files]
    with ThreadPoolExecutor(_PARALLEL) as pool:

        def compiled(job: tuple[str, _Extension]) -> Path:
            file, one = job
            includes = [f"-I{path}" for path in (sysconfig.get_paths()["include"], *one.headers)]
            command = [compiler, "-c", *_FLAGS]
            key = headers.copy()
            key.update(repr([*command, sysconfig.get_paths()["include"], Path(file).name]).encode())
            key.update(Path(file).read_bytes())
            made = cache / f"{key.hexdigest()}.o"
            if not made.is_file():
                fresh = work / made.name
                _run([*command, *includes, "-o", str(fresh), file])
                os.replace(fresh, made)
            return made

        objects = list(pool.map(compiled, jobs))

        def linked(one: _Extension) -> None:
            parts = [str(made) for made, (_, of) in zip(objects, jobs, strict=True) if of is one]
            _run([compiler, "-shared", "-o", str(out / f"{one.name}{suffix}"), *parts])

        list(pool.map(linked, extensions))
    for old in set(cache.iterdir()) - set(objects):
        old.unlink()
    return out


def _run(command: Sequence[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InvalidInput("C code that the compiler refuses", command[-1], done.stderr.strip()[-2000:])


def main(arguments: Sequence[str]) -> int:
    """Exit code 0: the compiled set is there and current; 1: it is not, or cannot be made on this machine; 2: the
    sources cannot be compiled."""
    if current():
        return 0
    if list(arguments) == ["--check"]:
        return 1
    sys.stderr.write("ztunnel: compiling the hot modules (the first time half a minute)\n")
    try:
        sys.stderr.write(f"ztunnel: {compile_all()}\n")
    except (Unavailable, InvalidInput) as error:
        sys.stderr.write(f"ztunnel: not compiled, the sources are interpreted: {error}\n")
        return 1 if isinstance(error, Unavailable) else 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
