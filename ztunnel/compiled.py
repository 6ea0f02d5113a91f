"""Which form of the hot modules this process runs: compiled, or the same sources interpreted.

A compiled set lies in a folder of its own, never beside the sources, with a manifest that names every source it depends
on by digest. It is used whole or not at all, and only while every one of those sources is what it was made from: an
edited file always wins. Standard library only; the set is made by `ztunnel.compiling`.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import sysconfig
from collections.abc import Mapping, MutableSequence, Sequence
from dataclasses import dataclass
from importlib.machinery import ExtensionFileLoader, ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parent.parent
"""The folder that holds the packages."""
FOLDER: Final = ROOT / "ztunnel" / "_compiled"
SWITCH: Final = "ZTUNNEL_COMPILED"
"""Environment variable: "never" runs the sources although a compiled set is there."""


@dataclass(frozen=True, slots=True)
class Form:
    """What runs. `why` says what it was compiled with, or why it is not."""

    compiled: bool
    why: str

    def __str__(self) -> str:
        return f"{'compiled' if self.compiled else 'interpreted'} ({self.why})"


def abi() -> str:
    """The interpreter that a set was made for; also the name of its manifest."""
    return str(sysconfig.get_config_var("SOABI") or sys.implementation.cache_tag)


def digest(path: Path) -> str:
    """SHA-256 of a file's contents, in hex; "" when it cannot be read."""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError:
        return ""


def use(
    environment: Mapping[str, str] = os.environ,
    folder: Path = FOLDER,
    root: Path = ROOT,
    finders: MutableSequence[Any] = sys.meta_path,
    loaded: Mapping[str, ModuleType] = sys.modules,
) -> Form:
    """Have imports from now on find the compiled modules, if there are fitting ones; says which form runs.

    Must come before the first of these modules is imported, or nothing is changed.
    """
    if environment.get(SWITCH) == "never":
        return Form(False, f"{SWITCH}=never")
    try:
        manifest = json.loads((folder / f"{abi()}.json").read_bytes())
        sources: Mapping[str, str] = manifest["sources"]
        libraries: Mapping[str, str] = manifest["libraries"]
        made_with = str(manifest["made_with"])
    except FileNotFoundError:
        return Form(False, f"nothing was compiled for {abi()}")
    except (OSError, ValueError, KeyError, TypeError) as error:
        return Form(False, f"unusable manifest: {error!r}")
    changed = next((name for name, known in sources.items() if digest(root / name) != known), None)
    if changed is not None:
        return Form(False, f"{changed} is not what was compiled")
    absent = next((path for path in libraries.values() if not (folder / path).is_file()), None)
    if absent is not None:
        return Form(False, f"{absent} is gone")
    early = next((name for name in libraries if name in loaded), None)
    if early is not None:
        return Form(False, f"{early} was imported before")
    finders.insert(0, Finder({name: folder / path for name, path in libraries.items()}))
    return Form(True, f"{len(libraries) - 1} modules, {made_with}")


class Finder:
    """Finds exactly the modules of one set (`importlib.abc.MetaPathFinder`)."""

    def __init__(self, libraries: Mapping[str, Path]) -> None:
        self._libraries = libraries

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The spec of a compiled module; None for any other."""
        library = self._libraries.get(name)
        if library is None:
            return None
        return spec_from_file_location(name, library, loader=ExtensionFileLoader(name, str(library)))
