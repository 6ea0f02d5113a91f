"""The catalogue: what changed when, what is where, and that nothing is encoded twice."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ambient.errors import Unavailable
from ambient.xds.catalogue import SLICE, Catalogue
from ambient.xds.codec import ADDRESS_TYPE, AUTHORIZATION_TYPE, encode
from ambient.xds.steps import finish
from tests.support.discovery import rich_service, rich_workload, simple_policy, simple_workload

A, B = simple_workload("a"), simple_workload("b")


def test_encoding_is_kept_for_what_did_not_change() -> None:
    catalogue = Catalogue()
    catalogue.update([A, B], 1)
    kept = catalogue.resources(ADDRESS_TYPE)[B.uid]
    assert catalogue.update([replace(A, node="x"), simple_workload("b")], 2) == 1
    assert catalogue.resources(ADDRESS_TYPE)[B.uid] is kept
    assert catalogue.resources(ADDRESS_TYPE)[A.uid] == encode(replace(A, node="x"))


def test_an_update_that_changes_nothing_makes_no_generation() -> None:
    catalogue = Catalogue()
    assert catalogue.update([A], 1) == 1
    generation = catalogue.generation
    assert catalogue.update([simple_workload("a")], 2) == 0
    assert (catalogue.generation, catalogue.revision) == (generation, 2)


def test_a_change_puts_and_removes_what_it_names_and_leaves_the_rest() -> None:
    catalogue = Catalogue()
    catalogue.update([A, simple_policy("p")], 1)
    first = catalogue.generation
    assert catalogue.change([B], {ADDRESS_TYPE: [A.uid, "never there"], AUTHORIZATION_TYPE: []}, 2) == 2
    assert set(catalogue.resources(ADDRESS_TYPE)) == {B.uid}
    assert set(catalogue.resources(AUTHORIZATION_TYPE)) == {"ns/p"}
    assert set(catalogue.changed_since(ADDRESS_TYPE, first)) == {A.uid, B.uid}
    assert catalogue.change([], {}, 3) == 0
    assert (catalogue.generation, catalogue.revision) == (first + 1, 3)


def test_a_large_update_goes_in_steps_and_nothing_of_it_is_seen_before_the_last() -> None:
    catalogue = Catalogue()
    many = [simple_workload(f"w{number}") for number in range(5 * SLICE)]
    steps = catalogue.updating(many, 1)
    for _ in range(5):
        next(steps)
        assert not catalogue.filled
        assert not catalogue.resources(ADDRESS_TYPE)
    assert finish(steps) == 5 * SLICE
    assert (catalogue.filled, len(catalogue.resources(ADDRESS_TYPE)), catalogue.revision) == (True, 5 * SLICE, 1)


def test_changes_since_a_generation_are_those_after_it_per_type() -> None:
    catalogue = Catalogue()
    catalogue.update([A, B], 1)
    first = catalogue.generation
    catalogue.update([A, simple_policy("p")], 2)
    assert list(catalogue.changed_since(ADDRESS_TYPE, first)) == [B.uid]
    assert list(catalogue.changed_since(AUTHORIZATION_TYPE, first)) == ["ns/p"]
    assert set(catalogue.changed_since(ADDRESS_TYPE, 0)) == {A.uid, B.uid}
    assert list(catalogue.changed_since(ADDRESS_TYPE, catalogue.generation)) == []


def test_whoever_is_behind_more_removals_than_are_remembered_has_to_start_again() -> None:
    catalogue = Catalogue(most_tombstones=2)
    catalogue.update([simple_workload(f"w{i}") for i in range(5)], 1)
    first = catalogue.generation
    catalogue.update([], 2)
    with pytest.raises(Unavailable, match="too many were removed"):
        list(catalogue.changed_since(ADDRESS_TYPE, first))
    assert list(catalogue.changed_since(ADDRESS_TYPE, catalogue.generation)) == []


def test_names_and_aliases_are_found_while_they_exist() -> None:
    catalogue = Catalogue()
    catalogue.update([rich_workload(), rich_service()], 1)
    assert catalogue.find(ADDRESS_TYPE, "net-1/10.0.0.1") == {rich_workload().uid}
    assert catalogue.find(ADDRESS_TYPE, "/fd00::/64") == {rich_service().key}
    assert catalogue.group(ADDRESS_TYPE, "node:n1") == {rich_workload().uid}
    catalogue.update([rich_workload(addresses=(), node="n2")], 2)
    assert catalogue.find(ADDRESS_TYPE, "net-1/10.0.0.1") == frozenset()
    assert catalogue.find(ADDRESS_TYPE, rich_service().key) == frozenset()
    assert catalogue.group(ADDRESS_TYPE, "node:n1") == frozenset()
    assert catalogue.group(ADDRESS_TYPE, "node:n2") == {rich_workload().uid}


def test_two_workloads_of_one_address_are_both_found() -> None:
    catalogue = Catalogue()
    twin = replace(rich_workload(), uid="twin")
    catalogue.update([rich_workload(), twin], 1)
    assert catalogue.find(ADDRESS_TYPE, "net-1/10.0.0.1") == {rich_workload().uid, "twin"}


def test_resources_are_those_of_the_codec() -> None:
    catalogue = Catalogue()
    catalogue.update([A], 1)
    assert dict(catalogue.resources(ADDRESS_TYPE)) == {A.uid: encode(A)}
    assert dict(catalogue.records(ADDRESS_TYPE)) == {A.uid: A}
    assert catalogue.serves(ADDRESS_TYPE)
    assert not catalogue.serves("other")
