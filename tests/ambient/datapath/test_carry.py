"""Which maps of one version are those of the other: of the same layout; tables with the shape of their tables."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from ambient.datapath.bpfinfo import Kind, MapLayout
from ambient.datapath.carry import alike, layouts
from ambient.datapath.shapes import opaque
from ambient.errors import KernelError

ROWS = MapLayout(Kind.HASH, 16, 0, opaque(16), opaque(4))
INNER = MapLayout(Kind.LPM_TRIE, 1, 1, opaque(24), opaque(16))
OUTER = MapLayout(Kind.HASH_OF_MAPS, 16, 0, opaque(20), opaque(4))
SOCKETS = MapLayout(Kind.SK_STORAGE, 0, 1, opaque(4), opaque(4))
OLD = {"pods": ROWS, "deny": OUTER, "deny_rows": INNER, "looped": SOCKETS}


def test_the_same_layout_is_the_same_map() -> None:
    assert alike(OLD, OLD) == frozenset(OLD)
    assert alike({}, OLD) == frozenset()
    assert alike(OLD, {"pods": ROWS, "visits": ROWS}) == {"pods"}


@pytest.mark.parametrize(
    "other",
    [
        replace(ROWS, value=opaque(8)),
        replace(ROWS, key=opaque(8)),
        replace(ROWS, entries=17),
        replace(ROWS, flags=1),
        replace(ROWS, kind=Kind.LRU_HASH),
    ],
)
def test_another_value_key_size_or_kind_is_another_map(other: MapLayout) -> None:
    assert alike(OLD, {**OLD, "pods": other}) == frozenset(OLD) - {"pods"}


def test_tables_go_with_the_shape_of_their_tables() -> None:
    assert alike(OLD, {**OLD, "deny_rows": replace(INNER, value=opaque(24))}) == {"pods", "looped"}


def test_what_sockets_keep_is_never_another_map_of_the_same_name() -> None:
    with pytest.raises(KernelError, match=r"looped.*give the new map another name"):
        alike(OLD, {**OLD, "looped": replace(SOCKETS, value=opaque(8))})
    assert "looped" not in alike(OLD, {"pods": ROWS})


def test_listeners_are_put_there_once_and_so_never_into_another_map() -> None:
    waiting = MapLayout(Kind.SOCKHASH, 16, 0, opaque(40), opaque(8))
    listeners = MapLayout(Kind.SOCKHASH, 16, 0, opaque(8), opaque(8))
    old = {"reborn": waiting, "listeners": listeners}
    assert alike(old, {**old, "reborn": replace(waiting, entries=32)}) == {"listeners"}
    with pytest.raises(KernelError, match=r"listeners.*give the new map another name"):
        alike(old, {**old, "listeners": replace(listeners, entries=32)})
    assert alike(old, {"reborn": waiting}) == {"reborn"}


def test_nothing_is_pinned_where_nothing_is(tmp_path: Path) -> None:
    assert layouts(tmp_path / "maps") == {}
