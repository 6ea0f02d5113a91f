from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ambient.errors import InvalidInput
from ambient.lab.names import Names, lab_name

LABS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,6}[a-z0-9])?", fullmatch=True)
LABELS = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,6}[a-z0-9])?", fullmatch=True)
NAMES = st.lists(LABELS, min_size=1, max_size=3).map(".".join)


@pytest.mark.parametrize("name", ["", "-a", "a-", "A", "a.b", "a_b", "../x", "a/b", "a b", "a" * 33, "ä", "a\n"])
def test_what_is_no_dns_label_is_no_lab_name(name: str) -> None:
    with pytest.raises(InvalidInput):
        lab_name(name)


@given(LABS, LABS, NAMES, LABELS, NAMES)
def test_no_lab_owns_a_namespace_of_another(one: str, other: str, node: str, namespace: str, pod: str) -> None:
    mine = Names(one)
    for netns in (mine.net, mine.control, mine.node(node), mine.pod(namespace, pod)):
        assert mine.owns(netns)
        assert Names(other).owns(netns) == (one == other)


@given(LABELS, NAMES, LABELS, NAMES, NAMES)
def test_no_two_things_of_a_lab_share_a_namespace(ns: str, pod: str, other_ns: str, other_pod: str, node: str) -> None:
    names = Names("x")
    assert (names.pod(ns, pod) == names.pod(other_ns, other_pod)) == ((ns, pod) == (other_ns, other_pod))
    assert len({names.net, names.control, names.node(node), names.pod(ns, pod)}) == 4


def test_a_name_too_long_for_a_file_is_refused() -> None:
    with pytest.raises(InvalidInput, match="too long"):
        Names("x").pod("n" * 63, "p" * 200)


def test_sockets_of_a_node_stay_below_the_limit_of_unix_paths() -> None:
    assert len(str(Names("x" * 32).node_folder(250) / "custody.sock")) <= 107
