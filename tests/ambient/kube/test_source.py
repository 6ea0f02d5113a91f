"""Which source the setting means, and what of it an agent reads."""

from __future__ import annotations

from pathlib import Path

import pytest

from ambient.errors import InvalidInput
from ambient.kube.folder import ObjectFolder
from ambient.kube.source import KUBERNETES, concerns, open_source


def test_a_path_is_a_folder(tmp_path: Path) -> None:
    assert isinstance(open_source(tmp_path, {}), ObjectFolder)
    assert isinstance(open_source(Path("./sub/kubernetes"), {}), ObjectFolder)


def test_the_word_kubernetes_is_the_api_server_which_has_to_be_named_somewhere(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput):
        open_source(KUBERNETES, {"HOME": str(tmp_path)})


@pytest.mark.parametrize(
    ("kind", "content", "kept"),
    [
        ("Namespace", {}, True),
        ("Service", {}, False),
        ("Pod", {"spec": {"nodeName": "n1"}}, True),
        ("Pod", {"spec": {"nodeName": "n2"}}, False),
        ("Pod", {"spec": {}}, False),
        ("Pod", {"spec": "broken"}, True),
    ],
)
def test_an_agent_reads_namespaces_and_the_pods_of_its_node(kind: str, content: dict[str, object], kept: bool) -> None:
    assert concerns("n1", kind, content) is kept
