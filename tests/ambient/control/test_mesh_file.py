"""The file of the mesh config: read when it changes; what cannot be read takes nothing away."""

from __future__ import annotations

from pathlib import Path

import pytest

from ambient.control.mesh_file import MeshFile
from ambient.kube.mesh_config import MeshConfig

GOOD = "extensionProviders: [{name: %s, envoyExtAuthzGrpc: {service: a.b, port: 1}}]"


def test_what_it_says_is_told_once_and_again_when_it_is_something_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "mesh"
    told: list[MeshConfig] = []
    file = MeshFile(path)
    file.changed = told.append
    caplog.set_level("INFO")
    file.look()
    file.look()
    assert told == []
    assert caplog.text.count("No such file") == 1
    assert {one.levelname for one in caplog.records} == {"INFO"}
    for name in ("one", "one", "two"):
        path.write_text(GOOD % name)
        file.look()
    assert [list(one.providers) for one in told] == [["one"], ["two"]]
    path.write_text("{")
    file.look()
    assert len(told) == 2
    path.write_text(GOOD.replace("port: 1", "port: 0") % "three")
    file.look()
    assert dict(told[-1].providers) == {}
    assert "port: 0 is not a port" in caplog.text


def test_a_file_that_goes_is_an_alarm_and_changes_nothing(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "mesh"
    told: list[MeshConfig] = []
    file = MeshFile(path)
    file.changed = told.append
    path.write_text(GOOD % "one")
    file.look()
    path.unlink()
    file.look()
    assert len(told) == 1
    assert [one.levelname for one in caplog.records] == ["ERROR"]


def test_a_mounted_config_map_is_read_again_when_the_kubelet_has_swapped_it(tmp_path: Path) -> None:
    told: list[MeshConfig] = []
    for number, name in enumerate(("one", "two")):
        (tmp_path / f"..{number}").mkdir()
        (tmp_path / f"..{number}" / "mesh").write_text(GOOD % name)
    (tmp_path / "..data").symlink_to("..0")
    (tmp_path / "mesh").symlink_to("..data/mesh")
    file = MeshFile(tmp_path / "mesh")
    file.changed = told.append
    file.look()
    (tmp_path / "..tmp").symlink_to("..1")
    (tmp_path / "..tmp").rename(tmp_path / "..data")
    file.look()
    assert [list(one.providers) for one in told] == [["one"], ["two"]]
