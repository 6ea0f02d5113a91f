"""A Redis on a cluster: the image, made of this machine's own program, and its objects. It keeps nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from daemonset.image.oci import Image
from tests.cluster.lab import system_images
from tests.support.kube import Object, pod, pod_spec, service
from tests.support.redis_server import binary

IMAGE: Final = "localhost/redis:1"
PORT: Final = 6379


def archive() -> Path:
    """Of the image, for the nodes."""
    return system_images.made("redis", _fill, Image(reference=IMAGE, layers=()))


def _fill(root: Path) -> None:
    system_images.skeleton(root)
    system_images.put(root, binary(), "redis-server")


def redis(namespace: str, *, node: str) -> tuple[Object, Object]:
    """The Service `redis` and its pod."""
    argv = ("redis-server", "--port", str(PORT), "--bind", "0.0.0.0", "--protected-mode", "no", "--save", "")
    probe = {"readinessProbe": {"tcpSocket": {"port": PORT}, "periodSeconds": 1}}
    spec = pod_spec((*argv, "--dir", "/tmp"), IMAGE, node=node, **probe)
    return service(namespace, "redis", redis=(PORT, PORT)), pod(namespace, "redis", spec)
