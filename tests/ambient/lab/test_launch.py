from __future__ import annotations

from typing import Any

import pytest

from ambient.errors import InvalidInput
from ambient.kube.objects import Pod, parse_object
from ambient.lab.cgroup import find_mount
from ambient.lab.launch import Confinement, command, confinement, environment, expand


def _pod(container: dict[str, Any] | None = None, **spec: Any) -> Pod:
    containers = [{"name": "c", "command": ["true"], **(container or {})}]
    raw = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x", "namespace": "a", "uid": "u"}}
    pod = parse_object(
        {
            **{**raw, "spec": {"containers": containers, **spec}},
            "status": {"podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}], "hostIP": "10.1.0.1"},
        },
        "t",
    )
    assert isinstance(pod, Pod)
    return pod


@pytest.mark.parametrize(
    ("text", "expanded"),
    [("$(A)", "1"), ("x$(A)y$(B)", "x1y$(B)"), ("$$(A)", "$(A)"), ("$A", "$A"), ("$($(A))", "$(1)"), ("$", "$")],
)
def test_references_are_expanded_as_kubernetes_does(text: str, expanded: str) -> None:
    assert expand(text, {"A": "1"}) == expanded


def test_the_downward_fields_are_the_pods() -> None:
    fields = {
        "NAME": "metadata.name",
        "UID": "metadata.uid",
        "ACCOUNT": "spec.serviceAccountName",
        "HOST": "status.hostIP",
        "IPS": "status.podIPs",
    }
    env = [{"name": name, "valueFrom": {"fieldRef": {"fieldPath": path}}} for name, path in fields.items()]
    pod = _pod({"env": [*env, {"name": "BOTH", "value": "$(NAME)-$(UID)"}], "args": ["$(BOTH)"]})
    values = environment(pod, pod.containers[0])
    assert {name: values[name] for name in fields} == {
        **{"NAME": "x", "UID": "u", "ACCOUNT": "default", "HOST": "10.1.0.1", "IPS": "10.0.0.1,fd00::1"},
    }
    assert command(pod.containers[0], values) == ["true", "x-u"]


def test_a_container_that_asks_for_nothing_gets_a_runtimes_usual_capabilities() -> None:
    given = confinement(_pod(), "c")
    assert "net_raw" in given.capabilities
    assert not {"net_admin", "sys_admin", "sys_ptrace", "bpf"} & set(given.capabilities)
    assert "--bounding-set=-all,+audit_write,+chown" in " ".join(given.argv())


@pytest.mark.parametrize(
    ("context", "wanted"),
    [
        ({"capabilities": {"drop": ["ALL"], "add": ["NET_RAW"]}}, Confinement(capabilities=("net_raw",))),
        ({"capabilities": {"add": ["CAP_NET_ADMIN"], "drop": ["all"]}}, Confinement(capabilities=("net_admin",))),
        ({"capabilities": {"add": ["ALL"]}}, Confinement(capabilities=("all",))),
        ({"runAsUser": 7, "runAsGroup": 8, "capabilities": {"drop": ["ALL"]}}, Confinement(False, (), 7, 8)),
    ],
)
def test_the_security_context_is_followed(context: dict[str, Any], wanted: Confinement) -> None:
    assert confinement(_pod({"securityContext": context}), "c") == wanted


def test_privileged_is_privileged() -> None:
    assert confinement(_pod({"securityContext": {"privileged": True}}), "c").argv() == []


def test_a_container_overrides_its_pod() -> None:
    given = confinement(_pod({"securityContext": {"runAsUser": 2}}, securityContext={"runAsUser": 1}), "c")
    assert given.user == 2


@pytest.mark.parametrize("context", [{"runAsUser": "root"}, {"runAsUser": -1}, {"capabilities": {"add": [1]}}])
def test_a_security_context_of_the_wrong_type_is_refused(context: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="securityContext"):
        confinement(_pod({"securityContext": context}), "c")


@pytest.mark.parametrize(
    ("mounts", "found"),
    [
        ("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n", "/sys/fs/cgroup"),
        ("cgroup /sys/fs/cgroup/cpu cgroup rw 0 0\ncgroup2 /a\\040b cgroup2 rw 0 0\n", "/a b"),
        ("proc /proc proc rw 0 0\n", "None"),
    ],
)
def test_the_cgroup_mount_is_found(mounts: str, found: str) -> None:
    assert str(find_mount(mounts)) == found
