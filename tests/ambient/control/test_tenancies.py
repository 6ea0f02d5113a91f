"""Which accounts run where, as objects come and go."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from ambient.ca.entitle import Tenancy
from ambient.control.tenancies import Tenancies, tenancy_of
from ambient.kube.objects import Namespace, Pod, Records


def pod(name: str, node: str = "n1", phase: str = "Running", account: str = "") -> Pod:
    return Pod(name=name, namespace="shop", node_name=node, service_account=account or name, phase=phase)


def test_tenancies_are_placed_pods_that_neither_finished_nor_failed() -> None:
    pods = [
        pod("running"),
        pod("pending", phase="Pending"),
        pod("new", phase=""),
        pod("unplaced", "", "Pending"),
        pod("done", phase="Succeeded"),
        pod("dead", phase="Failed"),
    ]
    assert Tenancies().update(Records(1, {one.key: one for one in pods})) == {
        Tenancy("n1", "shop", "running"),
        Tenancy("n1", "shop", "pending"),
        Tenancy("n1", "shop", "new"),
    }
    assert tenancy_of(None) is None
    assert tenancy_of(Namespace(name="shop")) is None


def test_an_account_is_entitled_until_its_last_pod_on_the_node_is_gone() -> None:
    tenancies = Tenancies()
    one, two = pod("one", account="web"), pod("two", account="web")
    web = {Tenancy("n1", "shop", "web")}
    assert tenancies.update(Records(1, {one.key: one, two.key: two})) == web
    assert tenancies.update(Records(2, {two.key: two}, changed=frozenset({one.key}))) == web
    assert tenancies.update(Records(3, {}, changed=frozenset({two.key}))) == set()


def test_what_changes_without_changing_who_runs_where_is_the_same_set() -> None:
    tenancies = Tenancies()
    one = pod("one")
    first = tenancies.update(Records(1, {one.key: one}))
    assert tenancies.update(Records(2, {one.key: pod("one", phase="Pending")}, changed=frozenset({one.key}))) is first


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from("abc"),
            st.tuples(st.sampled_from(["n1", "n2", ""]), st.sampled_from(["Running", "Failed"]), st.sampled_from("xy")),
        ),
        max_size=6,
    ),
    st.booleans(),
)
def test_step_by_step_is_the_same_as_at_once(worlds: list[dict[str, tuple[str, str, str]]], told: bool) -> None:
    tenancies = Tenancies()
    before: dict[str, Pod] = {}
    for revision, world in enumerate(worlds, 1):
        now = {made.key: made for made in (pod(name, *rest) for name, rest in world.items())}
        changed = frozenset(key for key in before | now if before.get(key) != now.get(key))
        found = tenancies.update(Records(revision, now, changed=changed if told and revision > 1 else None))
        assert found == Tenancies().update(Records(1, now))
        before = now
