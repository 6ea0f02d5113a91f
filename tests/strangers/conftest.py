"""One mesh for all strangers of a run: pods that are in it, and two whose tunnels are spoken by somebody else."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ambient.cli.demo.app import SERVER
from ambient.cli.demo.stage import PYTHON
from tests.support.arena import Arena, arena
from tests.support.journey import HTTP
from tests.support.lab import object_yaml, pod_yaml, until
from tests.support.peers import listens

FOREIGN = "plain/foreign"
"""Not captured, but said to speak HBONE by itself: our ztunnels tunnel to its 15008, where a stranger listens."""
NATIVE = {"networking.istio.io/tunnel": "http"}


@pytest.fixture(scope="session")
def place() -> Iterator[Arena]:
    with arena("strange") as made:
        command = [PYTHON, "-u", "-c", SERVER]
        foreign = pod_yaml(FOREIGN, command, node="n2", account="foreign", labels={"app": "foreign", **NATIVE})
        made.lab.apply(object_yaml("v1", "ServiceAccount", "foreign", "plain") + foreign)
        until("the stranger's application listens", lambda: listens(made.lab, FOREIGN, "127.0.0.1", HTTP))
        yield made
