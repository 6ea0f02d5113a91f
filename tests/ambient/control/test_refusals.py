"""What is said of what is stored and wrong."""

from __future__ import annotations

from ambient.control.refusals import RefusalEvents, with_refusals
from ambient.errors import InvalidInput
from ambient.kube.api.events import Regarding
from ambient.kube.objects import AuthorizationPolicy, Condition, PeerAuthentication, Records, RefusedObject

PEER = PeerAuthentication(name="p", namespace="shop")
POLICY = AuthorizationPolicy(name="a", namespace="shop")
SAID = {POLICY.key: (Condition("ZtunnelAccepted", "True"),)}


def refused(kind: str, *, stands: bool = False) -> RefusedObject:
    return RefusedObject(kind, "shop", "x", InvalidInput("object", "spec.a", "is odd"), stands=stands)


def test_a_refused_object_says_where_and_why_and_what_holds() -> None:
    found = with_refusals([refused("ServiceEntry"), refused("DestinationRule", stands=True)], SAID, ())
    assert found["ServiceEntry/shop/x"][0].message == "spec.a: is odd; it has no effect until then"
    assert found["DestinationRule/shop/x"][0].message == "spec.a: is odd; its last good version stays in force"
    assert found[POLICY.key] is SAID[POLICY.key]


def test_what_has_its_own_words_keeps_them() -> None:
    own = {"AuthorizationPolicy/shop/x": (Condition("ZtunnelAccepted", "False"),)}
    assert with_refusals([refused("AuthorizationPolicy")], own, own) == own


def test_of_what_others_write_nothing_is_said() -> None:
    assert with_refusals([refused("Pod"), refused("Node")], {}, ()) == {}


def test_a_policy_without_words_has_room_for_the_nodes() -> None:
    assert with_refusals((), SAID, [PEER.key, POLICY.key]) == {**SAID, PEER.key: ()}


def test_each_refused_version_is_one_event_of_the_object_from_the_one_that_writes() -> None:
    said: list[tuple[Regarding, str]] = []
    leads = False
    events = RefusalEvents(lambda about, _reason, note, _action: said.append((about, note)), lambda: leads)
    odd = RefusedObject("Pod", "shop", "x", InvalidInput("object", "spec", "is odd"), {"metadata": {"uid": "u"}})
    worse = RefusedObject("Pod", "shop", "x", InvalidInput("object", "spec", "is worse"))
    events.hear(Records(1, {}, (odd,)))
    assert said == []
    leads = True
    for _ in range(3):
        events.hear(Records(1, {}, (odd,)))
    assert said == [(Regarding("v1", "Pod", "x", "shop", "u"), "spec: is odd; it has no effect until then")]
    events.hear(Records(2, {}, (worse,)))
    events.hear(Records(3, {}))
    events.hear(Records(4, {}, (odd,)))
    assert [note.partition(";")[0] for _, note in said] == ["spec: is odd", "spec: is worse", "spec: is odd"]


def test_of_unreadable_rules_for_tokens_it_is_said_that_they_close_what_they_name() -> None:
    error = InvalidInput("object", "spec.a", "is odd")
    raw = {"spec": {"targetRefs": [{"kind": "Service", "name": "web"}]}}
    told = with_refusals([RefusedObject("RequestAuthentication", "shop", "x", error, raw)], {}, ())
    ((said,),) = told.values()
    assert said.message == "spec.a: is odd; what it names is closed until then"
    ((said,),) = with_refusals([refused("RequestAuthentication")], {}, ()).values()
    assert said.message.endswith("it has no effect until then")
