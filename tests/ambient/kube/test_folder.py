"""The shared folder of objects: what was put is read, changes wake readers, broken files are reported."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import Any

import pytest

from ambient.errors import InvalidInput
from ambient.kube.folder import ObjectFolder
from ambient.kube.objects import Condition, Namespace, Pod, Record, Records, WriterState, parse_object


def pod(name: str = "a", namespace: str = "default", **spec: Any) -> Record:
    raw = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "namespace": namespace},
        "spec": {"containers": [{"name": "c"}], **spec},
    }
    return parse_object(raw, "test")


def namespace(name: str = "default", **labels: str) -> Record:
    return parse_object({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}}, "test")


def the_pod(records: Records) -> Pod:
    (found,) = records.of(Pod)
    return found


def test_a_folder_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert ObjectFolder(tmp_path / "none").records() == Records()


def test_what_was_put_is_read_with_uid_creation_time_and_generation(tmp_path: Path) -> None:
    folder = ObjectFolder(tmp_path)
    assert folder.put([namespace(), pod()]) == 1
    records = ObjectFolder(tmp_path).records()
    assert records.revision == 1
    assert [r.name for r in records.of(Namespace)] == ["default"]
    assert the_pod(records).uid
    assert the_pod(records).created
    assert the_pod(records).generation == 1


def test_putting_the_same_again_changes_nothing(tmp_path: Path) -> None:
    folder = ObjectFolder(tmp_path)
    folder.put([pod()])
    assert folder.put([pod()]) == 1


def test_a_changed_spec_keeps_the_uid_and_counts_the_generation(tmp_path: Path) -> None:
    folder = ObjectFolder(tmp_path)
    folder.put([pod()])
    uid = the_pod(folder.records()).uid
    assert folder.put([pod(nodeName="n1")]) == 2
    after = the_pod(folder.records())
    assert (after.uid, after.generation, after.node_name) == (uid, 2, "n1")


def test_delete_removes_the_object_and_what_was_said_about_it(tmp_path: Path) -> None:
    folder = ObjectFolder(tmp_path)
    folder.put([pod()])
    folder.status("agent-n1").annotate("Pod/default/a", {"x": "y"})
    assert folder.delete(["Pod/default/a"]) == 2
    assert folder.records().of(Pod) == []
    assert list((tmp_path / "status" / "agent-n1").glob("*.json")) == []
    assert folder.delete(["Pod/default/a"]) == 2


def test_status_of_several_writers_is_merged(tmp_path: Path) -> None:
    folder = ObjectFolder(tmp_path)
    folder.put([pod()])
    folder.status("agent-n1").annotate("Pod/default/a", {"ambient.istio.io/redirection": "enabled"})
    folder.status("kubelet-n1").set("Pod/default/a", phase="Running", ready=True, podIPs=[{"ip": "10.0.0.1"}])
    folder.status("control").conditions("Pod/default/a", [Condition("Bound", "True", "Fine", "all well")])
    merged = the_pod(folder.records())
    assert merged.annotations == {"ambient.istio.io/redirection": "enabled"}
    assert (merged.phase, merged.ready, [str(ip) for ip in merged.ips]) == ("Running", True, ["10.0.0.1"])
    assert merged.condition("Bound") == Condition("Bound", "True", "Fine", "all well")
    assert folder.stored(merged.key) is not None
    assert "annotations" not in folder.stored(merged.key)["metadata"]  # type: ignore[index]


def test_an_annotation_taken_away_is_gone(tmp_path: Path) -> None:
    folder = ObjectFolder(tmp_path)
    folder.put([pod()])
    writer = folder.status("agent-n1")
    writer.annotate("Pod/default/a", {"x": "y"})
    writer.annotate("Pod/default/a", {"x": None})
    assert the_pod(folder.records()).annotations == {}


def test_what_was_said_about_a_deleted_pod_does_not_stick_to_its_successor(tmp_path: Path) -> None:
    folder = ObjectFolder(tmp_path)
    folder.put([pod()])
    old = the_pod(folder.records())
    folder.delete([old])
    folder.put([pod()])
    folder.status("agent-n1").annotate(old, {"ambient.istio.io/redirection": "enabled"})
    assert the_pod(folder.records()).annotations == {}


def test_saying_the_same_again_does_not_count_as_a_change(tmp_path: Path) -> None:
    folder = ObjectFolder(tmp_path)
    folder.put([pod()])
    writer = folder.status("control")
    for _ in range(3):
        writer.conditions("Pod/default/a", [Condition("Bound", "True")])
        writer.observed(1)
    assert folder.records().writers == {"control": WriterState(observed=1, status=1)}


def test_a_writer_that_restarts_goes_on_counting(tmp_path: Path) -> None:
    folder = ObjectFolder(tmp_path)
    folder.put([pod()])
    folder.status("control").set("Pod/default/a", phase="Running")
    folder.status("control").set("Pod/default/a", phase="Failed")
    assert folder.records().writers["control"].status == 2


def test_forget_takes_everything_back(tmp_path: Path) -> None:
    folder = ObjectFolder(tmp_path)
    folder.put([pod()])
    writer = folder.status("control")
    writer.set("Pod/default/a", phase="Running")
    writer.forget("Pod/default/a")
    assert the_pod(folder.records()).phase == ""


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"\xff\xfe", b'{"kind": "Pod"}', b'{"apiVersion":"v1","kind":"Pod","metadata":{"name":"b"}}'],
)
def test_a_broken_file_is_reported_and_the_last_good_version_stays(tmp_path: Path, content: bytes) -> None:
    folder = ObjectFolder(tmp_path)
    folder.put([pod(), pod("other")])
    folder.records()
    path = tmp_path / "objects" / "Pod.default.a.json"
    path.write_bytes(content)
    records = folder.records()
    assert [p.name for p in records.of(Pod)] == ["a", "other"]
    (refused,) = records.refused
    assert (refused.key, refused.stands) == ("Pod/default/a", True)
    assert "Pod.default.a.json" in str(refused.error)


def test_a_broken_file_without_a_good_version_is_reported_as_missing(tmp_path: Path) -> None:
    ObjectFolder(tmp_path).put([pod(), pod("other")])
    (tmp_path / "objects" / "Pod.default.a.json").write_text("{")
    records = ObjectFolder(tmp_path).records()
    assert [p.name for p in records.of(Pod)] == ["other"]
    assert [(r.key, r.stands) for r in records.refused] == [("Pod/default/a", False)]


def test_a_broken_status_file_is_reported_and_the_object_stays(tmp_path: Path) -> None:
    folder = ObjectFolder(tmp_path)
    folder.put([pod()])
    folder.status("agent-n1").annotate("Pod/default/a", {"x": "y"})
    (tmp_path / "status" / "agent-n1" / "Pod.default.a.json").write_text("nonsense")
    records = folder.records()
    assert the_pod(records).annotations == {}
    assert [r.stands for r in records.refused] == [True]


def test_a_repaired_file_is_read_again(tmp_path: Path) -> None:
    folder = ObjectFolder(tmp_path)
    folder.put([pod()])
    path = tmp_path / "objects" / "Pod.default.a.json"
    good = path.read_bytes()
    path.write_text("{")
    folder.records()
    path.write_bytes(good)
    assert folder.records().refused == ()


@pytest.mark.parametrize("key", ["", "Pod/a", "Pod//a", "Pod/a/b/c", "Pod/../x", "Pod/.a/x", "Pod/a/" + "x" * 253])
def test_a_key_that_cannot_be_stored_is_refused(tmp_path: Path, key: str) -> None:
    with pytest.raises(InvalidInput):
        ObjectFolder(tmp_path).status("w").set(key, a=1)


def run(main: Coroutine[Any, Any, None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await main

    asyncio.run(bounded())


def test_changes_yields_now_and_after_each_change_of_objects_and_status(tmp_path: Path) -> None:
    async def main() -> None:
        folder = ObjectFolder(tmp_path)
        folder.put([pod()])
        changes = folder.changes()
        assert (await anext(changes)).revision == 1
        folder.put([pod("b")])
        assert len((await anext(changes)).of(Pod)) == 2
        folder.status("agent-n1").annotate("Pod/default/a", {"x": "y"})
        assert (await anext(changes)).of(Pod)[0].annotations == {"x": "y"}
        await changes.aclose()  # type: ignore[attr-defined]

    run(main())


def test_changes_made_by_another_process_wake_two_readers(tmp_path: Path) -> None:
    script = (
        "import sys; from ambient.kube.folder import ObjectFolder; from ambient.kube.objects import parse_object;"
        "ObjectFolder(sys.argv[1]).put([parse_object({'apiVersion': 'v1', 'kind': 'Namespace',"
        " 'metadata': {'name': 'late'}}, 'x')])"
    )

    async def main() -> None:
        folder = ObjectFolder(tmp_path)
        folder.put([namespace()])
        readers = [folder.changes(), ObjectFolder(tmp_path).changes()]
        for reader in readers:
            await anext(reader)
        child = await asyncio.create_subprocess_exec(sys.executable, "-c", script, str(tmp_path))
        for reader in readers:
            assert [n.name for n in (await anext(reader)).of(Namespace)] == ["default", "late"]
            await reader.aclose()  # type: ignore[attr-defined]
        assert await child.wait() == 0

    run(main())


def test_concurrent_writers_lose_no_change(tmp_path: Path) -> None:
    script = (
        "import sys; from ambient.kube.folder import ObjectFolder; from ambient.kube.objects import parse_object\n"
        "for i in range(10): ObjectFolder(sys.argv[1]).put([parse_object({'apiVersion': 'v1', 'kind': 'Namespace',"
        " 'metadata': {'name': f'{sys.argv[2]}-{i}'}}, 'x')])"
    )
    children = [subprocess.Popen([sys.executable, "-c", script, str(tmp_path), name]) for name in ("a", "b")]
    assert [child.wait(30) for child in children] == [0, 0]
    records = ObjectFolder(tmp_path).records()
    assert (records.revision, len(records.of(Namespace))) == (20, 20)


def test_a_status_revision_file_that_is_broken_reads_as_zero(tmp_path: Path) -> None:
    folder = ObjectFolder(tmp_path)
    folder.put([pod()])
    folder.status("w").observed(1)
    (tmp_path / "status" / "w" / ".revision").write_text(json.dumps({"observed": "x"}))
    assert folder.records().writers["w"] == WriterState(0, 0)


def test_a_reader_keeps_only_what_concerns_it_and_hears_when_that_changes(tmp_path: Path) -> None:
    def keep(kind: str, content: Mapping[str, Any]) -> bool:
        return kind == "Namespace" or content["spec"].get("nodeName") == "n1"

    folder, reader = ObjectFolder(tmp_path), ObjectFolder(tmp_path, keep=keep)
    folder.put([namespace(), pod("a", nodeName="n1"), pod("b", nodeName="n2"), pod("c")])
    folder.status("kubelet-n2").set(pod("b"), phase="Running")
    for directory in (tmp_path / "objects", tmp_path / "status" / "kubelet-n2"):
        for file in directory.glob("*.json"):
            # Older than the moment within which a file might be replaced unseen.
            os.utime(file, (1_000_000_000, 1_000_000_000))
    for _ in range(2):
        assert {record.name for record in reader.records().by_key.values()} == {"default", "a"}
    assert {path.name for path in reader._decoded} == {"Namespace._.default.json", "Pod.default.a.json"}
    assert set(reader._foreign) == {"Pod.default.b.json", "Pod.default.c.json"}
    folder.put([pod("c", nodeName="n1")])
    folder.delete([pod("b")])
    assert {record.name for record in reader.records().by_key.values()} == {"default", "a", "c"}
    assert reader._foreign == {}


def test_what_cannot_be_read_is_reported_to_every_reader(tmp_path: Path) -> None:
    folder = ObjectFolder(tmp_path)
    folder.put([pod()])
    (tmp_path / "objects" / "Pod.default.a.json").write_text("{}")
    reader = ObjectFolder(tmp_path, keep=lambda _kind, content: content.get("spec") is None)
    assert [refused.name for refused in reader.records().refused] == ["a"]
