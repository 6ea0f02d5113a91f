"""The multi-maps under the mesh."""

from __future__ import annotations

from ipaddress import ip_address

from ambient.model.index import BlockIndex, NameIndex


def test_names_keep_their_order_and_empty_keys_are_forgotten() -> None:
    index: NameIndex[str] = NameIndex()
    index.add("k", "b")
    index.add("k", "a")
    index.add("k", "b")
    assert index.names("k") == ("b", "a")
    index.discard("k", "b")
    index.discard("k", "missing")
    index.discard("other", "b")
    assert index.names("k") == ("a",)
    index.discard("k", "a")
    assert index.names("k") == ()


def test_blocks_are_found_longest_first_and_by_family_and_network() -> None:
    index = BlockIndex()
    ten = ip_address("10.1.2.3")
    index.add("", ip_address("10.0.0.0"), 8, "wide")
    index.add("", ip_address("10.1.2.0"), 24, "narrow")
    index.add("", ip_address("0.0.0.0"), 0, "all")
    index.add("far", ip_address("10.0.0.0"), 8, "far")
    index.add("", ip_address("::"), 0, "six")
    assert list(index.matching("", ten)) == [(24, "narrow"), (8, "wide"), (0, "all")]
    assert list(index.matching("", ip_address("::1"))) == [(0, "six")]
    assert list(index.matching("far", ten)) == [(8, "far")]


def test_a_block_added_twice_stays_until_discarded() -> None:
    index = BlockIndex()
    base = ip_address("10.0.0.0")
    index.add("", base, 8, "a")
    index.add("", base, 8, "b")
    index.discard("", base, 8, "a")
    assert list(index.matching("", ip_address("10.9.9.9"))) == [(8, "b")]
    index.discard("", base, 8, "b")
    index.discard("", base, 8, "b")
    assert list(index.matching("", ip_address("10.9.9.9"))) == []
