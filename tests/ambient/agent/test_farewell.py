from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from ambient.agent.farewell import InApi, what_was_said
from ambient.agent.settings import AgentSettings
from ambient.kube.api.client import ApiClient
from ambient.kube.folder import ObjectFolder
from ambient.kube.objects import parse_object
from ambient.settings import read_settings
from tests.support.agent_lab import ANNOTATION, pod
from tests.support.kube_api import FakeApi

TAINT = "ambient.mesh/agent-not-ready"


def settings(objects: str) -> AgentSettings:
    given = {"NODE_NAME": "n1", "AMBIENT_OBJECTS": objects, "AMBIENT_POD_NETNS": "kubernetes", "AMBIENT_TAINT": TAINT}
    return read_settings(AgentSettings, given)


def annotated(name: str, **annotations: str) -> dict[str, Any]:
    return pod(name, ["10.0.0.5"], annotations={ANNOTATION: "enabled", **annotations})


def test_annotations_and_taint_are_taken_back_from_the_api() -> None:
    async def started() -> FakeApi:
        return await FakeApi().__aenter__()

    with asyncio.Runner() as runner:
        api = runner.run(started())
        api.put({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}, "spec": {"taints": [{"key": TAINT}]}})
        api.put(annotated("web", other="stays"))
        api.put(pod("plain", ["10.0.0.6"]))
        client = ApiClient(api.access(), timeout_s=5)
        said = InApi(settings("kubernetes"), client, runner)
        for one in said.pods():
            said.forget(one)
        said.untaint()
        patches = [path for method, path, _ in api.requests if method == "PATCH"]
        listed = [query for method, path, query in api.requests if path == "/api/v1/pods"]
        node = api.stored("Node", "n1")
        runner.run(client.close())
        runner.run(api.__aexit__(None, None, None))
    assert patches == ["/api/v1/namespaces/shop/pods/web/status", "/api/v1/nodes/n1"]
    assert listed == [{"fieldSelector": "spec.nodeName=n1"}]
    assert node is not None
    assert not node["spec"].get("taints")


def test_a_folder_forgets_the_same(tmp_path: Path) -> None:
    folder = ObjectFolder(tmp_path)
    folder.put([parse_object(pod("web", ["10.0.0.5"]), "t")])
    folder.status("agent-n1").annotate("Pod/shop/web", {ANNOTATION: "enabled"})
    with what_was_said(settings(str(tmp_path))) as said:
        (web,) = said.pods()
        assert web.annotations[ANNOTATION] == "enabled"
        said.forget(web)
        said.untaint()
        (web,) = said.pods()
    assert ANNOTATION not in web.annotations
