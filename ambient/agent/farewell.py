"""What an agent that is taken off a node takes back of what it said: annotations of the node's pods, and the taint."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Final, Protocol

from ambient.agent.enrol import REDIRECTION_ANNOTATION
from ambient.agent.report import remove_taint
from ambient.agent.settings import AgentSettings
from ambient.errors import InvalidInput
from ambient.kube.api.client import ApiClient
from ambient.kube.api.failure import NotThere
from ambient.kube.api.slim import slim
from ambient.kube.folder import ObjectFolder
from ambient.kube.objects import Pod, parse_object, resources
from ambient.kube.source import KUBERNETES

LAST_WORDS_S: Final = 2.0
"""A node that is given up waits no longer for an answer of the API server: what is on the node itself matters more."""


class Said(Protocol):
    def pods(self) -> list[Pod]:
        """The node's pods. Raises MeshError."""

    def forget(self, pod: Pod) -> None:
        """Take back what was said of it. Raises MeshError."""

    def untaint(self) -> None: ...


class InFolder:
    def __init__(self, settings: AgentSettings) -> None:
        self._node = settings.node
        self._folder = ObjectFolder(settings.objects)
        self._status = self._folder.status(f"agent-{settings.node}")

    def pods(self) -> list[Pod]:
        return [pod for pod in self._folder.records().of(Pod) if pod.node_name == self._node]

    def forget(self, pod: Pod) -> None:
        self._status.forget(pod)

    def untaint(self) -> None:
        """Nodes of a folder have no taints."""


class InApi:
    def __init__(self, settings: AgentSettings, client: ApiClient, runner: asyncio.Runner) -> None:
        self._settings = settings
        self._client = client
        self._runner = runner

    def pods(self) -> list[Pod]:
        place = resources("Pod")[0]
        found = self._runner.run(self._client.list(place, fields=f"spec.nodeName={self._settings.node}"))
        pods = []
        for item in found.get("items") or []:
            with suppress(InvalidInput):
                content = slim("Pod", {"kind": "Pod", "apiVersion": place.group_version, **item})
                pod = parse_object(content, "Kubernetes API", observed=True)
                pods += [pod] if isinstance(pod, Pod) else []
        return pods

    def forget(self, pod: Pod) -> None:
        if REDIRECTION_ANNOTATION not in pod.annotations:
            return
        body = {"metadata": {"uid": pod.uid, "annotations": {REDIRECTION_ANNOTATION: None}}}
        patch = self._client.patch(resources("Pod")[0], pod.name, body, pod.namespace, subresource="status")
        with suppress(NotThere):
            self._runner.run(patch)

    def untaint(self) -> None:
        if self._settings.taint:
            self._runner.run(remove_taint(self._client, self._settings.node, self._settings.taint))


@contextmanager
def what_was_said(settings: AgentSettings) -> Iterator[Said]:
    """Raises InvalidInput when the API server is meant and nobody tells where it is."""
    if settings.objects != KUBERNETES:
        yield InFolder(settings)
        return
    client = ApiClient.open(os.environ, timeout_s=LAST_WORDS_S)
    with asyncio.Runner() as runner:
        try:
            yield InApi(settings, client, runner)
        finally:
            runner.run(client.close())
