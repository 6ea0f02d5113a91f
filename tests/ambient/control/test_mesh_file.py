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
    file.look()
    file.look()
    assert told == []
    assert caplog.text.count("No such file") == 1
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
