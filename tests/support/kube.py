"""A real cluster in tests: kubectl as people use it, and waiting for what it shows."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.waiting import until

SYSTEM = "ambient-system"
PATIENCE_S = 120.0
ROLLED = ("deployment/ambient-control", "daemonset/ztunnel", "daemonset/ambient-agent")
LABEL = "istio.io/dataplane-mode"
Object = dict[str, Any]


class Failed(AssertionError):
    """A command failed that should not have."""


@dataclass(frozen=True)
class Kube:
    """`image`: the mesh's; its Python serves as application, too."""

    kubectl: Path
    kubeconfig: Path
    image: str

    def run(self, *argv: str, given: str = "", check: bool = True, timeout: float = 180) -> str:
        """What kubectl printed."""
        result = subprocess.run(
            [self.kubectl, "--kubeconfig", self.kubeconfig, *argv],
            input=given,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout,
        )
        if check and result.returncode != 0:
            raise Failed(f"kubectl {' '.join(argv)}: {result.stderr.strip()}")
        return result.stdout

    def apply(self, *objects: Object) -> None:
        listed = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        self.run("apply", "--server-side", "--force-conflicts", "-f", "-", given=json.dumps(listed))

    def refusal(self, *objects: Object) -> str:
        """Why these cannot be applied."""
        listed = {"apiVersion": "v1", "kind": "List", "items": list(objects)}
        try:
            self.run("apply", "--server-side", "-f", "-", given=json.dumps(listed))
        except Failed as error:
            return str(error)
        raise Failed("it was applied")

    def get(self, kind: str, name: str, namespace: str = SYSTEM) -> Object:
        found: Object = json.loads(self.run("-n", namespace, "get", kind, name, "-o", "json"))
        return found

    def all(self, kind: str, namespace: str = "", *, labels: str = "", fields: str = "") -> list[Object]:
        where = ["-n", namespace] if namespace else ["-A"]
        selected = ["-l", labels, "--field-selector", fields]
        found: list[Object] = json.loads(self.run("get", kind, *where, *selected, "-o", "json"))["items"]
        return found

    def delete(self, kind: str, name: str, namespace: str = SYSTEM, *, wait: bool = True) -> None:
        words = ["-n", namespace, "delete", kind, name, "--ignore-not-found", f"--wait={str(wait).lower()}"]
        self.run(*words)

    def exec(self, namespace: str, pod: str, *argv: str) -> subprocess.CompletedProcess[str]:
        """Run a command in a pod."""
        return subprocess.run(
            [self.kubectl, "--kubeconfig", self.kubeconfig, "-n", namespace, "exec", pod, "--", *argv],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    def fetch(self, namespace: str, pod: str, url: str) -> str | None:
        """What a pod is answered; None when it is refused or not answered."""
        done = self.exec(namespace, pod, "curl", "-sS", "-f", "-m", "8", url)
        return done.stdout if done.returncode == 0 else None

    def rolled_out(self, *names: str, namespace: str = SYSTEM) -> None:
        """All of these (`deployment/x`) are as they are wanted."""
        for name in names:
            self.run("-n", namespace, "rollout", "status", name, "--timeout=170s")

    def ready(self, namespace: str, labels: str = "", *, patience_s: float = PATIENCE_S) -> list[Object]:
        """The pods, all of them ready."""

        def done() -> bool:
            found = self.all("pods", namespace, labels=labels)
            return bool(found) and all(is_ready(pod) for pod in found)

        try:
            until(done, f"for ready pods in {namespace}", patience_s=patience_s, pause_s=0.3)
        except AssertionError:
            raise Failed(self.troubles(namespace)) from None
        return self.all("pods", namespace, labels=labels)

    def troubles(self, namespace: str) -> str:
        pods = self.run("-n", namespace, "get", "pods", "-o", "wide")
        return f"{pods}\n{self.run('-n', namespace, 'get', 'events', check=False)[-3000:]}"

    def ambient(self, *argv: str) -> subprocess.CompletedProcess[str]:
        """Our own command line on this cluster."""
        environment = {**os.environ, "KUBECONFIG": str(self.kubeconfig)}
        return subprocess.run(
            [sys.executable, "-m", "ambient", *argv, "--kubeconfig", str(self.kubeconfig)],
            capture_output=True,
            text=True,
            check=False,
            env=environment,
            timeout=300,
        )

    @contextmanager
    def namespace(self, name: str, *, mesh: bool = True) -> Iterator[str]:
        """A namespace of this name, in the mesh or not, until the end of the block."""
        self.apply(namespace(name, mesh=mesh))
        try:
            yield name
        finally:
            self.delete("namespace", name, wait=False)


def eventually(condition: Callable[[], object], what: str, patience_s: float = PATIENCE_S) -> None:
    """Until it is so; looking costs a process."""
    until(condition, what, patience_s=patience_s, pause_s=0.3)


def is_ready(pod: Mapping[str, Any]) -> bool:
    conditions = {one["type"]: one["status"] for one in pod.get("status", {}).get("conditions", ())}
    return conditions.get("Ready") == "True" and "deletionTimestamp" not in pod["metadata"]


def address(pod: Mapping[str, Any]) -> str:
    found: str = pod["status"]["podIP"]
    return found


def redirection(pod: Mapping[str, Any]) -> str:
    found: str = pod["metadata"].get("annotations", {}).get("ambient.istio.io/redirection", "")
    return found


# --- objects


def namespace(name: str, *, mesh: bool = True) -> Object:
    labels = {LABEL: "ambient"} if mesh else {}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}


def account(namespace: str, name: str) -> Object:
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}}


def service(namespace: str, name: str, **ports: tuple[int, int]) -> Object:
    """Ports: name -> (port, target port)."""
    listed = [{"name": key, "port": port, "targetPort": target} for key, (port, target) in ports.items()]
    spec = {"selector": {"app": name}, "ports": listed}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }


def pod_spec(argv: Sequence[str], image: str, *, node: str = "", account: str = "default", **container: Any) -> Object:
    made: Object = {
        "terminationGracePeriodSeconds": 0,
        "serviceAccountName": account,
        "tolerations": [{"operator": "Exists"}],
        "containers": [
            {"name": "app", "image": image, "imagePullPolicy": "IfNotPresent", "command": list(argv), **container}
        ],
    }
    if node:
        made["nodeName"] = node
    return made


def pod(namespace: str, name: str, spec: Object, **labels: str) -> Object:
    metadata = {"name": name, "namespace": namespace, "labels": {"app": name, **labels}}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def deployment(namespace: str, name: str, replicas: int, spec: Object, **more: Any) -> Object:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": spec},
            **more,
        },
    }


def policy(kind: str, namespace: str, name: str, spec: Object) -> Object:
    return {
        "apiVersion": "security.istio.io/v1",
        "kind": kind,
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }
