"""apply, delete and label as kubectl does them, through the command line."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.lab import SLEEP, LabUnderTest, lab_under_test, namespace_yaml, object_yaml, pod_yaml, until


@pytest.fixture(scope="module")
def lab() -> Iterator[LabUnderTest]:
    with lab_under_test("apply") as lab:
        lab.up(namespace_yaml("a"))
        yield lab


def _labels(lab: LabUnderTest, key: str) -> dict[str, str]:
    return dict(lab.lab.records().by_key[key].labels)


def test_apply_says_created_then_unchanged_then_configured(lab: LabUnderTest) -> None:
    one = pod_yaml("a/one", SLEEP, node="n1")
    assert lab.apply(one) == "pod/one created\n"
    assert lab.apply(one) == "pod/one unchanged\n"
    uid = lab.pod("a/one").uid
    assert lab.apply(pod_yaml("a/one", SLEEP, node="n1", labels={"x": "y"})) == "pod/one configured\n"
    assert lab.apply(one) == "pod/one configured\n"
    assert (lab.pod("a/one").uid, lab.pod("a/one").labels) == (uid, {})


def test_what_may_not_change_is_refused_and_the_others_are_applied(lab: LabUnderTest) -> None:
    lab.apply(pod_yaml("a/fixed", SLEEP, node="n1"))
    changed = pod_yaml("a/fixed", ["sleep", "1"], node="n1") + pod_yaml("a/beside", SLEEP, node="n1")
    done = lab.run("apply", "-f", "-", text=changed)
    assert done.returncode == 1
    assert done.stdout == "pod/beside created\n"
    assert "pod/fixed refused: spec.containers[0].command" in done.stderr
    assert lab.pod("a/fixed").containers[0].command == ("sleep", "infinity")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (pod_yaml("nowhere/x", SLEEP), 'namespaces "nowhere" not found'),
        (pod_yaml("a/x", SLEEP, account="nobody"), 'serviceaccount "nobody" not found'),
        (pod_yaml("a/x", []), "spec.containers[0].command: is required"),
        (pod_yaml("a/x", SLEEP, annotations={"ambient.mesh/pod-ips": "224.0.0.1"}), "cannot be a pod's address"),
        (
            object_yaml("v1", "Service", "x", "a", spec={"clusterIP": "1.2.3.4", "ports": [{"port": 1}]}),
            "not a free address of the service ranges",
        ),
        (object_yaml("v1", "Node", "x", spec={"podCIDR": "10.0.0.0/24"}), "given by the lab"),
    ],
)
def test_an_object_the_lab_cannot_have_is_refused_with_the_reason(lab: LabUnderTest, text: str, why: str) -> None:
    before = lab.lab.records().revision
    done = lab.run("apply", "-f", "-", text=text)
    assert done.returncode == 1
    assert why in done.stderr
    assert lab.lab.records().revision == before


def test_an_invalid_document_changes_nothing_at_all(lab: LabUnderTest, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.yaml", tmp_path / "bad.yaml"
    good.write_text(namespace_yaml("not-made"))
    bad.write_text(namespace_yaml("nor-this") + pod_yaml("a/x", SLEEP, restart="Sometimes"))
    before = lab.lab.records().revision
    done = lab.run("apply", "-f", str(good), "-f", str(bad))
    assert done.returncode == 1
    assert done.stdout == ""
    assert all(part in done.stderr for part in (str(bad), "document 2", "spec.restartPolicy", "'Sometimes'"))
    assert lab.lab.records().revision == before


def test_a_folder_is_all_its_files(lab: LabUnderTest, tmp_path: Path) -> None:
    (tmp_path / "2.yaml").write_text(pod_yaml("folder/x", SLEEP))
    (tmp_path / "1.json").write_text(json.dumps(json.loads(namespace_yaml("folder").removesuffix("---\n"))))
    (tmp_path / "notes.txt").write_text("not read")
    assert lab.must("apply", "-f", str(tmp_path)) == "namespace/folder created\npod/x created\n"


def test_a_label_set_by_hand_survives_the_next_apply(lab: LabUnderTest) -> None:
    lab.apply(namespace_yaml("labelled", mine="1"))
    assert lab.label("labelled", "by=hand") == "namespace/labelled labeled\n"
    assert lab.label("labelled", "by=hand") == "namespace/labelled not labeled\n"
    lab.apply(namespace_yaml("labelled", mine="2"))
    assert _labels(lab, "Namespace/_/labelled") == {"mine": "2", "by": "hand"}
    assert lab.label("labelled", "by-") == "namespace/labelled unlabeled\n"
    lab.apply(namespace_yaml("labelled"))
    assert _labels(lab, "Namespace/_/labelled") == {}


@pytest.mark.parametrize("change", ["a b=c", "=x", "k=" + "v" * 64])
def test_an_invalid_label_is_refused(lab: LabUnderTest, change: str) -> None:
    assert lab.run("label", "namespace", "a", change).returncode == 1


def test_deleting_what_is_not_there_is_an_error_and_the_others_go(lab: LabUnderTest) -> None:
    lab.apply(pod_yaml("a/going", SLEEP, node="n1"))
    done = lab.run("delete", "-f", "-", text=pod_yaml("a/never", SLEEP) + pod_yaml("a/going", SLEEP))
    assert done.returncode == 1
    assert done.stdout == "pod/going deleted\n"
    assert "NotFound" in done.stderr
    assert "Pod/a/going" not in lab.lab.records().by_key


def test_deleting_a_namespace_takes_everything_in_it_along(lab: LabUnderTest) -> None:
    content = pod_yaml("doomed/x", SLEEP) + object_yaml("v1", "ServiceAccount", "s", "doomed")
    lab.apply(namespace_yaml("doomed") + content)
    lab.delete(namespace_yaml("doomed"))
    assert [key for key in lab.lab.records().by_key if "doomed" in key] == []
    lab.apply(namespace_yaml("doomed"))


def test_pods_without_a_node_are_spread(lab: LabUnderTest) -> None:
    lab.apply(object_yaml("v1", "Node", "n8") + object_yaml("v1", "Node", "n9"))
    lab.apply("".join(pod_yaml(f"a/spread-{i}", SLEEP) for i in range(4)))
    nodes = [lab.pod(f"a/spread-{i}").node_name for i in range(4)]
    assert nodes.count("n8") == nodes.count("n9") == 2


def test_a_pod_with_an_address_of_its_own_choice_keeps_others_off_it(lab: LabUnderTest) -> None:
    chosen = {"ambient.mesh/pod-ips": "172.30.0.9"}
    lab.apply(pod_yaml("a/chosen", SLEEP, node="n1", annotations=chosen))
    assert lab.status_of("a/chosen")["ips"] == ["172.30.0.9"]
    done = lab.run("apply", "-f", "-", text=pod_yaml("a/thief", SLEEP, annotations=chosen))
    assert "is the address of pod a/chosen" in done.stderr


def test_apply_waits_for_the_nodes_and_names_who_is_late(lab: LabUnderTest) -> None:
    lab.apply(pod_yaml("a/here", SLEEP, node="n1"))
    pid = lab.component("n1", "kubelet")["pid"]
    lab.signal(pid, "STOP")
    try:
        done = lab.run("apply", "--timeout", "0.3", "-f", "-", text=pod_yaml("a/late", SLEEP, node="n1"))
        assert done.returncode == 1
        assert "n1/kubelet" in done.stderr
    finally:
        lab.signal(pid, "CONT")
    until("it runs after all", lambda: lab.pod("a/late").phase == "Running")


@pytest.mark.parametrize(
    "args",
    [
        ["apply"],
        ["label", "namespace", "a"],
        ["label", "namespace", "a", "novalue"],
        ["logs"],
        ["logs", "n1", "nothing"],
        ["fly"],
        [],
        ["status", "-o", "xml"],
        ["up", "--env", "novalue"],
        ["up", "--name", "UPPER"],
        ["up", "--name", "../etc"],
    ],
)
def test_wrong_usage_is_exit_code_2_and_says_why(args: list[str]) -> None:
    import subprocess
    import sys

    done = subprocess.run([sys.executable, "-m", "ambient", "lab", *args], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr
