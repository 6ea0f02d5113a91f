"""Wheels carry the compiled form of ztunnel's hot modules beside the sources, where this machine can make it.

Everything else is in pyproject.toml. mypy has to be there: `pip wheel --no-build-isolation .`; without it, or without
a C compiler, the wheel has the sources only and says so. An editable installation is compiled by `./dev`.
"""

import shutil
import sys
from pathlib import Path

from setuptools import Distribution, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).resolve().parent
sys.path.insert(0, str(ROOT))


class CompiledToo(build_py):
    """Copies the packages, then compiles what was copied."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        # What lies beside the packages in a checkout: the manifest that is installed, and the eBPF sources.
        built = Path(self.build_lib) / "ambient"
        shutil.copy(ROOT / "daemonset" / "install.yaml", built / "cli" / "install.yaml")
        shutil.copytree(ROOT / "bpf", built / "datapath" / "bpf", dirs_exist_ok=True)
        from ambient.errors import Unavailable
        from ztunnel.compiling import compile_all

        root = Path(self.build_lib).resolve()
        folder = root / "ztunnel" / "_compiled"
        try:
            self.announce(compile_all(folder, root), level=2)
        except Unavailable as error:
            self.warn(f"the wheel has the sources only: {error}")
            shutil.rmtree(folder, ignore_errors=True)
            return
        shutil.rmtree(folder / "objects")
        (folder / "lock").unlink()


class ForThisMachine(Distribution):
    """What may hold compiled modules is for one kind of machine and interpreter."""

    def has_ext_modules(self) -> bool:
        return True


setup(cmdclass={"build_py": CompiledToo}, distclass=ForThisMachine)
