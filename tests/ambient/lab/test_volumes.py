from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ambient.errors import InvalidInput
from ambient.kube.objects import ConfigMap, Pod, parse_object
from ambient.kube.records import Records
from ambient.lab.volumes import Mount, missing, mounts, write

VOLUMES: list[Any] = [{"name": "files", "configMap": {"name": "texts"}}, {"name": "scratch", "emptyDir": {}}]
MOUNTS: list[Any] = [{"name": "files", "mountPath": "/srv"}, {"name": "scratch", "mountPath": "/tmp"}]


def _pod(volumes: Any = VOLUMES, mounted: Any = MOUNTS) -> Pod:
    spec = {"containers": [{"name": "c", "command": ["true"], "volumeMounts": mounted}], "volumes": volumes}
    pod = parse_object(
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "a"}, "spec": spec}, "t"
    )
    assert isinstance(pod, Pod)
    return pod


def _texts(**data: str) -> Records:
    raw = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "texts", "namespace": "a"}, "data": data}
    record = parse_object(raw, "t")
    assert isinstance(record, ConfigMap)
    return Records(1, {record.key: record})


def test_a_config_map_is_mounted_from_the_pods_folder_and_other_volumes_are_the_machines() -> None:
    assert mounts(_pod(), "c", Path("/run/p")) == (Mount(Path("/run/p/volumes/files"), "/srv"),)
    assert mounts(_pod(), "other", Path("/run/p")) == ()


def test_a_pod_lacks_its_config_map_until_it_is_there_and_then_has_its_texts_as_files(tmp_path: Path) -> None:
    assert missing(_pod(), Records()) == ["texts"]
    texts = _texts(**{"one.py": "print(1)\n"})
    assert missing(_pod(), texts) == []
    write(_pod(), texts, tmp_path, tmp_path)
    assert (tmp_path / "volumes" / "files" / "one.py").read_text() == "print(1)\n"


@pytest.mark.parametrize("key", ["..", ".", "..x", "a/b", "", "x" * 254])
def test_a_key_that_could_not_be_a_file_is_refused(key: str) -> None:
    with pytest.raises(InvalidInput, match="is not a key"):
        _texts(**{key: ""})


@pytest.mark.parametrize(
    ("volumes", "mounted", "why"),
    [
        ([{"name": "../x", "configMap": {"name": "texts"}}], MOUNTS, "expected a name"),
        ([{"name": "files", "configMap": {}}], MOUNTS, "expected a name"),
        ([{"name": "files", "configMap": []}], MOUNTS, "only its name"),
        ([{"name": "files", "configMap": {"name": "texts", "items": []}}], MOUNTS, "only its name"),
        (VOLUMES, [{"name": "files", "mountPath": "srv"}], "absolute mountPath"),
        (VOLUMES, [{"name": "files", "mountPath": "/srv", "subPath": "x"}], "no subPath"),
        (VOLUMES, {}, "list of mappings"),
        ("x", MOUNTS, "list of mappings"),
    ],
)
def test_a_volume_that_cannot_be_given_is_refused(volumes: Any, mounted: Any, why: str) -> None:
    with pytest.raises(InvalidInput, match=why):
        mounts(_pod(volumes, mounted), "c", Path("/run/p"))
