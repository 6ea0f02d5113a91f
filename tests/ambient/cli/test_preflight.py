from __future__ import annotations

from typing import Any

import pytest

from ambient.cli.preflight import cilium, node, rivals, server, version_of


def machine(kernel: str = "6.18.1", architecture: str = "amd64", system: str = "linux") -> dict[str, Any]:
    told = {"kernelVersion": kernel, "architecture": architecture, "operatingSystem": system}
    return {"metadata": {"name": "n1"}, "status": {"nodeInfo": told}}


@pytest.mark.parametrize(
    ("text", "numbers"), [("v1.36.3", (1, 36)), ("6.1.0-21-amd64", (6, 1)), ("5.10.0+", (5, 10)), ("new", (0, 0))]
)
def test_versions_are_two_numbers(text: str, numbers: tuple[int, int]) -> None:
    assert version_of(text) == numbers


@pytest.mark.parametrize(("text", "healthy"), [("v1.30.0", True), ("v1.29.9", False), ("v2.0.0", True), ("", False)])
def test_an_old_server_is_told(text: str, healthy: bool) -> None:
    assert server({"gitVersion": text}).healthy is healthy


@pytest.mark.parametrize(
    ("content", "healthy", "word"),
    [
        (machine(), True, "kernel 6.18.1"),
        (machine("6.1.0"), True, "older ways"),
        (machine("5.4.0"), False, "older than 5.10"),
        (machine(architecture="s390x"), False, "no image"),
        (machine(system="windows"), None, "not be part"),
    ],
)
def test_a_node_is_judged_by_machine_and_kernel(content: dict[str, Any], healthy: bool | None, word: str) -> None:
    found = node(content)
    assert found.healthy is healthy
    assert word in found.detail


def daemonset(namespace: str, name: str) -> dict[str, Any]:
    return {"metadata": {"namespace": namespace, "name": name}}


def test_other_meshes_are_found_and_our_own_is_none() -> None:
    listed = [
        daemonset("istio-system", "istio-cni-node"),
        daemonset("istio-system", "ztunnel"),
        daemonset("ambient-system", "ztunnel"),
        daemonset("kube-system", "kube-proxy"),
    ]
    assert [finding.part for finding in rivals(listed, "ambient-system")] == [
        "daemonset istio-system/istio-cni-node",
        "daemonset istio-system/ztunnel",
    ]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (None, []),
        ({"cni-exclusive": "false"}, []),
        ({}, ["cni.exclusive"]),
        ({"cni-exclusive": "false", "bpf-lb-sock": "true"}, ["socketLB"]),
        ({"cni-exclusive": "false", "bpf-lb-sock": "true", "bpf-lb-sock-hostns-only": "true"}, []),
    ],
)
def test_cilium_has_to_leave_room(data: dict[str, str] | None, words: list[str]) -> None:
    found = cilium(None if data is None else {"data": data})
    assert [finding.detail.split(" ")[0] for finding in found] == [
        {"cni.exclusive": "cni.exclusive", "socketLB": "socketLB.hostNamespaceOnly"}[word] for word in words
    ]
