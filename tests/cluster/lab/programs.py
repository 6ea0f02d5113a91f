"""Where the cluster's programs come from: a cache of compressed builds, or the Go module proxy.

`$KUBE_LAB_CACHE` names a folder with files such as `etcd-3.6.16.zst`; what is not in it is built from the modules in
`go/`, whose go.sum pins every octet. containerd, runc and the CNI plugins are Debian's.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.cluster.lab.plan import STATE

BIN: Final = STATE / "bin"
MODULES: Final = Path(__file__).with_name("go")
KUBERNETES: Final = ("kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet", "kubectl")


@dataclass(frozen=True, slots=True)
class Program:
    """`file`: below BIN; `module`: folder below `go/`; `source`: the module whose version counts."""

    file: str
    module: str
    source: str
    package: str = "."
    archive: str = ""
    """Its name in the cache, where that is not `file`."""

    @property
    def version(self) -> str:
        text = (MODULES / self.module / "go.mod").read_text()
        found = re.search(rf"{re.escape(self.source)} v(\S+)", text)
        assert found is not None, f"{self.source} is not in go/{self.module}/go.mod"
        return found[1]

    @property
    def path(self) -> Path:
        return BIN / f"{self.file}-{self.version}"


KUBE: Final = Program("kube", "kube", "k8s.io/kubernetes", archive="kubebin")
ETCD: Final = Program("etcd", "etcd", "go.etcd.io/etcd/server/v3")
COREDNS: Final = Program("coredns", "coredns", "github.com/coredns/coredns")
HELM: Final = Program("helm", "helm", "helm.sh/helm/v4", "helm.sh/helm/v4/cmd/helm")


def ready(*programs: Program) -> None:
    """Have these programs in BIN. Raises SystemExit when one cannot be had."""
    BIN.mkdir(parents=True, exist_ok=True)
    with (BIN / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for program in programs:
            if not program.path.exists():
                unfinished = program.path.with_name(f"{program.path.name}.{os.getpid()}")
                if not _unpacked(program, unfinished):
                    _build(program, unfinished)
                unfinished.chmod(0o755)
                unfinished.rename(program.path)
            for name in KUBERNETES if program is KUBE else (program.file,):
                _link(BIN / name, program.path.name)


def _link(path: Path, target: str) -> None:
    if path.is_symlink() and os.readlink(path) == target:
        return
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def _unpacked(program: Program, target: Path) -> bool:
    cache = os.environ.get("KUBE_LAB_CACHE")
    if not cache:
        return False
    archive = Path(cache) / f"{program.archive or program.file}-{program.version}.zst"
    if not archive.exists():
        return False
    subprocess.run(["zstd", "-q", "-d", "-f", archive, "-o", target], check=True)
    return True


def _build(program: Program, target: Path) -> None:
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin:/usr/lib/go/bin")
    if go is None:
        raise SystemExit(
            f"cluster: {program.file} {program.version} has to be built and there is no Go here: install Go (the "
            f"version in {MODULES / program.module / 'go.mod'} or later), or set KUBE_LAB_CACHE"
        )
    flags = ["-s", "-w"]
    if program is KUBE:
        about = {
            "gitVersion": f"v{program.version}",
            "gitMajor": program.version.split(".")[0],
            "gitMinor": program.version.split(".")[1],
            "gitTreeState": "clean",
            "gitCommit": "0" * 40,
            "buildDate": "2026-01-01T00:00:00Z",
        }
        flags += [f"-X k8s.io/component-base/version.{name}={value}" for name, value in about.items()]
    print(f"cluster: building {program.file} {program.version}, once", file=sys.stderr)
    result = subprocess.run(
        ["nice", go, "build", "-trimpath", "-ldflags", " ".join(flags), "-o", target, program.package],
        cwd=MODULES / program.module,
        env={**os.environ, "GOFLAGS": "-mod=readonly", "CGO_ENABLED": "0"},
        check=False,
    )
    if result.returncode != 0:
        raise SystemExit(f"cluster: {program.file} {program.version} cannot be built")
