"""The CNI plugin, compiled once, and calls of it as a container runtime makes them."""

from __future__ import annotations

import atexit
import functools
import json
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

SOURCE = Path(__file__).parents[2] / "daemonset" / "cni" / "ambient-cni.c"
FLAGS = ("-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-Wconversion")


@functools.cache
def plugin(*more: str) -> Path:
    """The compiled program; `more` are further flags, "-static" when there are none."""
    directory = Path(tempfile.mkdtemp(prefix="amb-cni-"))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    target = directory / "ambient-cni"
    subprocess.run(["cc", *FLAGS, *(more or ("-static",)), "-o", target, SOURCE], check=True)
    return target


@dataclass(frozen=True)
class Ended:
    """What became of a call: exit code, standard output as it is."""

    code: int
    output: str

    @property
    def json(self) -> dict[str, Any]:
        value = json.loads(self.output)
        assert isinstance(value, dict)
        return value


def result(*addresses: str) -> dict[str, Any]:
    """What a bridge plugin answers."""
    return {
        "cniVersion": "1.0.0",
        "interfaces": [{"name": "cni0"}, {"name": "veth1"}, {"name": "eth0", "sandbox": "/run/netns/x"}],
        "ips": [{"address": f"{address}/24", "interface": 2} for address in addresses],
        "dns": {},
    }


def configuration(socket: Path | str, previous: Any = None, **ours: Any) -> str:
    value: dict[str, Any] = {
        "cniVersion": "1.0.0",
        "name": "pods",
        "type": "ambient-cni",
        "ambient": {"socket": str(socket), "passNamespaces": ["kube-system", "ambient-system"], **ours},
    }
    if previous is not None:
        value["prevResult"] = previous
    return json.dumps(value)


def arguments(namespace: str, name: str, uid: str, container: str = "c1") -> str:
    return (
        f"IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name};"
        f"K8S_POD_INFRA_CONTAINER_ID={container};K8S_POD_UID={uid}"
    )


def started(
    command: str, given: str, *, netns: str = "/run/netns/x", args: str = "", container: str = "c1", **environment: str
) -> subprocess.Popen[str]:
    """A call that goes on; `ended` waits for it."""
    process = subprocess.Popen(
        [plugin()],
        env={
            "CNI_COMMAND": command,
            "CNI_CONTAINERID": container,
            "CNI_NETNS": netns,
            "CNI_IFNAME": "eth0",
            "CNI_ARGS": args,
            "CNI_PATH": "/opt/cni/bin",
            **environment,
        },
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert process.stdin is not None
    process.stdin.write(given)
    process.stdin.close()
    process.stdin = None
    return process


def ended(process: subprocess.Popen[str], patience_s: float = 60) -> Ended:
    output, _ = process.communicate(timeout=patience_s)
    return Ended(process.returncode, output)


def call(command: str, given: str, **how: Any) -> Ended:
    return ended(started(command, given, **how))
