"""Who joins, how, and what is done about it: one case per rule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest

from ambient.agent.enrol import (
    Capture,
    Enrol,
    Gone,
    Held,
    NotEnrolled,
    PodTarget,
    Release,
    Rules,
    UpdateRow,
    plan,
    target,
)
from ambient.kube.records import Namespace, Pod

RULES = Rules(node="n1")
AMBIENT = {"istio.io/dataplane-mode": "ambient"}
NONE = {"istio.io/dataplane-mode": "none"}
IP4, IP6 = ip_address("10.0.0.1"), ip_address("fd00::1")


def pod(**changes: Any) -> Pod:
    fields: dict[str, Any] = {
        "name": "web",
        "namespace": "shop",
        "uid": "u1",
        "node_name": "n1",
        "ips": (IP4, IP6),
        "phase": "Running",
    }
    return Pod(**{**fields, **changes})


def namespace(name: str = "shop", **labels: str) -> Namespace:
    return Namespace(name=name, labels=labels)


MESH = Namespace(name="shop", labels=AMBIENT)
PLAIN = Namespace(name="shop")


@pytest.mark.parametrize(
    ("case", "given", "where", "outcome"),
    [
        ("namespace label", pod(), MESH, None),
        ("pod label", pod(labels=AMBIENT), PLAIN, None),
        ("pod label, namespace unknown", pod(labels=AMBIENT), None, None),
        ("pod label beats namespace none", pod(labels=AMBIENT), Namespace(name="shop", labels=NONE), None),
        ("not yet started pod with an address", pod(phase="Pending"), MESH, None),
        ("no label", pod(), PLAIN, NotEnrolled.NOT_LABELLED),
        ("unknown namespace", pod(), None, NotEnrolled.NOT_LABELLED),
        ("odd value", pod(labels={"istio.io/dataplane-mode": "Ambient"}), PLAIN, NotEnrolled.NOT_LABELLED),
        ("opted out", pod(labels=NONE), MESH, NotEnrolled.OPTED_OUT),
        ("host network", pod(host_network=True), MESH, NotEnrolled.HOST_NETWORK),
        ("host network, pod label", pod(host_network=True, labels=AMBIENT), MESH, NotEnrolled.HOST_NETWORK),
        ("sidecar", pod(annotations={"sidecar.istio.io/status": "{}"}), MESH, NotEnrolled.SIDECAR),
        ("kube-system", pod(namespace="kube-system", labels=AMBIENT), MESH, NotEnrolled.EXCLUDED_NAMESPACE),
        ("succeeded", pod(phase="Succeeded"), MESH, NotEnrolled.TERMINAL),
        ("failed", pod(phase="Failed"), MESH, NotEnrolled.TERMINAL),
        ("ztunnel", pod(namespace="ambient-system", labels={"app": "ztunnel", **AMBIENT}), MESH, NotEnrolled.ZTUNNEL),
        ("elsewhere called ztunnel", pod(labels={"app": "ztunnel"}), MESH, None),
        ("other app there", pod(namespace="ambient-system", labels={"app": "x"}), MESH, None),
        ("no address", pod(ips=()), MESH, NotEnrolled.NO_ADDRESS),
        ("other node", pod(node_name="n2"), MESH, NotEnrolled.OTHER_NODE),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_who_joins(case: str, given: Pod, where: Namespace | None, outcome: NotEnrolled | None) -> None:
    answer = target(given, where, RULES, policies_apply=False)
    assert (answer if isinstance(answer, NotEnrolled) else None) == outcome, case


@pytest.mark.parametrize(
    ("annotations", "policies", "capture"),
    [
        ({}, False, Capture()),
        ({"ambient.mesh/fail-mode": "open"}, False, Capture(fail_open=True)),
        ({"ambient.mesh/fail-mode": "open"}, True, Capture(fail_open=False)),
        ({"ambient.mesh/fail-mode": "OPEN"}, False, Capture(fail_open=False)),
        ({"ambient.mesh/fail-mode": "closed"}, False, Capture(fail_open=False)),
        ({"ambient.istio.io/bypass-inbound-capture": "true"}, False, Capture(inbound=False)),
        ({"ambient.istio.io/bypass-inbound-capture": "yes"}, False, Capture(inbound=True)),
        ({"ambient.istio.io/dns-capture": "false"}, False, Capture(dns=False)),
        ({"ambient.istio.io/dns-capture": "no"}, False, Capture(dns=True)),
    ],
)
def test_how_a_pod_is_captured(annotations: Mapping[str, str], policies: bool, capture: Capture) -> None:
    answer = target(pod(annotations=annotations), MESH, RULES, policies_apply=policies)
    assert isinstance(answer, PodTarget)
    assert answer.capture == capture


def test_a_pod_may_ask_for_name_capture_where_the_node_has_it_off() -> None:
    rules = replace(RULES, dns_capture=False)
    asked = target(pod(annotations={"ambient.istio.io/dns-capture": "true"}), MESH, rules, policies_apply=False)
    silent = target(pod(), MESH, rules, policies_apply=False)
    assert isinstance(asked, PodTarget)
    assert isinstance(silent, PodTarget)
    assert (asked.capture.dns, silent.capture.dns) == (True, False)


# --- actions


def wanted(given: Pod, *, policies_apply: bool = False) -> PodTarget:
    answer = target(given, MESH, RULES, policies_apply=policies_apply)
    assert isinstance(answer, PodTarget)
    return answer


def actions(
    pods: list[Pod], held: Mapping[str, Held], *, where: Namespace = MESH, unreadable: frozenset[str] = frozenset()
) -> list[object]:
    known = {one.uid: False for one in pods}
    return list(plan(pods, {"shop": where}, held, RULES, known, unreadable).actions)


def test_a_labelled_pod_is_enrolled_once() -> None:
    one = pod()
    assert actions([one], {}) == [Enrol(wanted(one))]
    assert actions([one], {"u1": Held(wanted(one))}) == []


def test_a_pod_about_which_policies_are_not_known_counts_as_selected() -> None:
    one = pod(annotations={"ambient.mesh/fail-mode": "open"})
    made = plan([one], {"shop": MESH}, {}, RULES, {})
    assert made.actions == (Enrol(wanted(one, policies_apply=True)),)


def test_a_pod_that_loses_the_label_is_released_once() -> None:
    one = pod()
    assert actions([one], {"u1": Held(wanted(one))}, where=PLAIN) == [Release("u1", NotEnrolled.NOT_LABELLED)]
    assert actions([one], {"u1": Held(wanted(one), releasing=True)}, where=PLAIN) == []


def test_a_pod_that_gets_the_label_back_while_it_is_released_is_enrolled() -> None:
    one = pod()
    assert actions([one], {"u1": Held(wanted(one), releasing=True)}) == [Enrol(wanted(one))]


@pytest.mark.parametrize("releasing", [False, True])
def test_a_deleted_pod_is_gone(releasing: bool) -> None:
    assert actions([], {"u1": Held(wanted(pod()), releasing)}) == [Gone("u1", "was-deleted")]


@pytest.mark.parametrize("phase", ["Succeeded", "Failed"])
def test_a_pod_that_has_ended_is_gone(phase: str) -> None:
    assert actions([pod(phase=phase)], {"u1": Held(wanted(pod()))}) == [Gone("u1", "has-ended")]


def test_a_pod_whose_status_is_empty_for_a_moment_stays() -> None:
    assert actions([pod(ips=())], {"u1": Held(wanted(pod()))}) == []


@pytest.mark.parametrize("key", ["Pod/shop/web", "Namespace/_/shop"])
@pytest.mark.parametrize("present", [True, False])
def test_a_pod_that_cannot_be_read_any_more_stays(key: str, present: bool) -> None:
    pods = [pod()] if present else []
    assert actions(pods, {"u1": Held(wanted(pod()))}, where=PLAIN, unreadable=frozenset({key})) == []


def test_a_pod_in_a_namespace_that_cannot_be_read_does_not_join() -> None:
    assert actions([pod(labels=AMBIENT)], {}, unreadable=frozenset({"Namespace/_/shop"})) == []


def test_a_changed_annotation_changes_the_row() -> None:
    changed = pod(annotations={"ambient.istio.io/dns-capture": "false"})
    assert actions([changed], {"u1": Held(wanted(pod()))}) == [UpdateRow(wanted(changed))]


def test_a_new_address_changes_the_row() -> None:
    assert actions([pod()], {"u1": Held(wanted(pod(ips=(IP4,))))}) == [UpdateRow(wanted(pod()))]


def test_an_address_goes_to_the_next_pod_after_the_last_one_is_gone() -> None:
    new = pod(name="next", uid="u2")
    assert actions([new], {"u1": Held(wanted(pod()))}) == [Gone("u1", "was-deleted"), Enrol(wanted(new))]


def test_an_address_that_a_living_pod_holds_is_not_taken_from_it() -> None:
    old, new = pod(), pod(name="aaa", uid="u2")
    made = plan([old, new], {"shop": MESH}, {"u1": Held(wanted(old))}, RULES, {"u1": False, "u2": False})
    assert made.actions == ()
    assert made.out == {"u2": NotEnrolled.ADDRESS_TAKEN}


def test_of_two_new_pods_with_one_address_one_joins() -> None:
    made = plan([pod(), pod(name="web2", uid="u2")], {"shop": MESH}, {}, RULES, {"u1": False, "u2": False})
    assert made.actions == (Enrol(wanted(pod())),)
    assert made.out == {"u2": NotEnrolled.ADDRESS_TAKEN}


def test_why_the_others_stay_out_is_told() -> None:
    made = plan([pod(labels=NONE), pod(uid="u2", node_name="n2")], {"shop": MESH}, {}, RULES, {})
    assert made.out == {"u1": NotEnrolled.OPTED_OUT}
