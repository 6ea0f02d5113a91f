"""Files of objects for the lab: everything wrong in them is told at once, and nothing is applied."""

from __future__ import annotations

from pathlib import Path

import pytest

from ambient.cli.lab_read import read_manifests
from ambient.errors import InvalidInput

GOOD = "apiVersion: v1\nkind: Namespace\nmetadata: {name: shop}\n"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "no objects in it"),
        (b"# nothing here\n", "no objects in it"),
        (b"---\n---\n", "no objects in it"),
        (b"\xff\xfe\x00", "not UTF-8 text"),
        (GOOD.encode() + b"---\n" + GOOD.encode(), "the same object stands in"),
        (b"kind: Nonsense\n", "document 1"),
    ],
)
def test_a_file_that_says_nothing_or_nonsense_is_refused_by_name(tmp_path: Path, content: bytes, why: str) -> None:
    bad, good = tmp_path / "bad.yaml", tmp_path / "good.yaml"
    bad.write_bytes(content)
    good.write_text(GOOD.replace("shop", "other"))
    with pytest.raises(InvalidInput, match="nothing was changed") as caught:
        read_manifests([str(good), str(bad)])
    assert why in str(caught.value)
    assert "bad.yaml" in str(caught.value)


def test_what_is_right_comes_back_in_order(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(GOOD)
    (tmp_path / "b.yml").write_text(GOOD.replace("shop", "other"))
    assert [record.name for record in read_manifests([str(tmp_path)])] == ["shop", "other"]
    assert read_manifests([]) == []
