"""Where the cluster's programs come from: a cache of compressed builds, or the Go module proxy.

`$KUBE_LAB_CACHE` names a folder with files such as `etcd-3.6.16.zst`; what is not in it is built from the modules in
`go/`, whose go.sum pins every octet. containerd, runc and the CNI plugins are Debian's.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Final

from tests.cluster.lab.plan import STATE

BIN: Final = STATE / "bin"
MODULES: Final = Path(__file__).with_name("go")
_ENVIRONMENT: Final = {**os.environ, "GOFLAGS": "-mod=readonly", "CGO_ENABLED": "0"}
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
    ours: bool = False
    """What it does is written here, in the module's main.go: with other text it is another program."""

    @property
    def version(self) -> str:
        text = (MODULES / self.module / "go.mod").read_text()
        found = re.search(rf"{re.escape(self.source)} v(\S+)", text)
        assert found is not None, f"{self.source} is not in go/{self.module}/go.mod"
        return found[1]

    @property
    def path(self) -> Path:
        text = (MODULES / self.module / "main.go").read_bytes() if self.ours else b""
        return BIN / f"{self.file}-{self.version}{f'-{sha256(text).hexdigest()[:8]}' if text else ''}"


KUBE: Final = Program("kube", "kube", "k8s.io/kubernetes", archive="kubebin")
ETCD: Final = Program("etcd", "etcd", "go.etcd.io/etcd/server/v3")
COREDNS: Final = Program("coredns", "coredns", "github.com/coredns/coredns")
HELM: Final = Program("helm", "helm", "helm.sh/helm/v4", "helm.sh/helm/v4/cmd/helm")
_SUITE: Final = "sigs.k8s.io/gateway-api/conformance"
_ECHO: Final = "istio.io/istio"
CONFORMANCE: Final = Program("conformance", "conformance", _SUITE, ours=True)
ECHO_BASIC: Final = Program("echo-basic", "conformance", _SUITE, f"{_SUITE}/echo-basic")
ECHO_SERVER: Final = Program("echo-server", "echo", _ECHO, f"{_ECHO}/pkg/test/echo/cmd/server")
ECHO_CLIENT: Final = Program("echo-client", "echo", _ECHO, f"{_ECHO}/pkg/test/echo/cmd/client")


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


def sources(module: str, name: str) -> Path:
    """The folder of a Go module that `go/<module>` uses, in Go's own cache."""
    argv = [_go(module), "mod", "download", "-json", name]
    result = subprocess.run(argv, cwd=MODULES / module, env=_ENVIRONMENT, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise SystemExit(f"cluster: {name} cannot be had: {(result.stderr or result.stdout).strip()}")
    return Path(json.loads(result.stdout)["Dir"])


def _go(module: str) -> str:
    go = shutil.which("go") or shutil.which("go", path="/usr/local/go/bin:/usr/lib/go/bin")
    if go is None:
        raise SystemExit(
            f"cluster: {module} has to be built and there is no Go here: install Go (the version in "
            f"{MODULES / module / 'go.mod'} or later), or set KUBE_LAB_CACHE"
        )
    return go


def _build(program: Program, target: Path) -> None:
    go = _go(program.module)
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
        env=_ENVIRONMENT,
        check=False,
    )
    if result.returncode != 0:
        raise SystemExit(f"cluster: {program.file} {program.version} cannot be built")
