"""What a TokenReview proves, and everything that it does not."""

from __future__ import annotations

from typing import Any

import pytest

from ambient.ca.review import Reviewed, expiry, node_of_pod, read_review
from ambient.ca.token import Caller
from ambient.errors import Refused
from tests.support.token_review import NOW, answer, token

GOOD = Reviewed("ambient-system", "ztunnel", "zt", "uid-1", "n1")


def test_a_token_that_is_bound_to_a_pod_names_its_node() -> None:
    assert read_review(answer(), "istio-ca") == GOOD
    assert GOOD.caller("n1") == Caller("n1", "ambient-system", "ztunnel", "uid-1")


@pytest.mark.parametrize("absent", [None, []])
def test_an_older_server_tells_the_pod_and_not_the_node(absent: Any) -> None:
    assert read_review(answer(extra={"node-name": absent}), "istio-ca").node == ""


@pytest.mark.parametrize(
    ("review", "reason"),
    [
        ({}, "does not accept"),
        ({"status": []}, "does not accept"),
        (answer(authenticated=None), "does not accept"),
        (answer(authenticated=False), "does not accept"),
        (answer(authenticated="true"), "does not accept"),
        (answer(audiences=None), "not made for audience 'istio-ca'"),
        (answer(audiences=[]), "not made for audience"),
        (answer(audiences=["https://kubernetes.default.svc"]), "not made for audience"),
        (answer(audiences="istio-ca"), "not made for audience"),
        (answer(user={"username": "system:node:n1"}), "no service account"),
        (answer(user={"username": None}), "no service account"),
        (answer(user={"username": "system:serviceaccount:a:b:c"}), "no service account"),
        (answer(user={"username": "system:serviceaccount:a/../b:c"}), "no service account"),
        (answer(user={"extra": None}), "not bound to a pod"),
        (answer(extra={"pod-name": None}), "not bound to a pod"),
        (answer(extra={"pod-uid": None}), "not bound to a pod"),
        (answer(extra={"pod-uid": ["a", "b"]}), "several values of pod-uid"),
        (answer(extra={"node-name": ["n1", "n2"]}), "several values of node-name"),
        (answer(extra={"node-name": "n1"}), "several values of node-name"),
        (answer(extra={"node-name": ["N 1"]}), "node-name is not of the expected form"),
        (answer(extra={"pod-name": ["../nodes/n1"]}), "pod-name is not of the expected form"),
    ],
)
def test_a_review_that_does_not_prove_a_pods_token_is_refused(review: dict[str, Any], reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        read_review(review, "istio-ca")


def pod(uid: str = "uid-1", account: str = "ztunnel", node: object = "n7") -> dict[str, Any]:
    return {"metadata": {"uid": uid}, "spec": {"serviceAccountName": account, "nodeName": node}}


def test_the_node_of_the_very_pod_counts() -> None:
    assert node_of_pod(pod(), GOOD) == "n7"


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        (pod(uid="uid-2"), "is gone"),
        ({}, "is gone"),
        (pod(account="other"), "another service account"),
        (pod(node=None), "on no node"),
        (pod(node=""), "on no node"),
    ],
)
def test_another_pod_of_that_name_proves_nothing(found: dict[str, Any], reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        node_of_pod(found, GOOD)


def test_the_end_of_a_token_is_read_without_believing_it() -> None:
    assert expiry(token(), NOW, "istio-ca") == NOW + 3600
    assert expiry(token(audience="istio-ca"), NOW, "istio-ca") == NOW + 3600


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ("", "expected form"),
        ("a.b", "expected form"),
        ("a.b.c.d", "expected form"),
        ("a..c", "expected form"),
        ("a.!!.c", "expected form"),
        ("a.bnVsbA.c", "expected form"),
        ("a." + "W1tb" * 3000 + ".c", "expected form"),
        ("x" * 20_000, "too long"),
        (token(audience=None), "not made for audience"),
        (token(audience=("other",)), "not made for audience"),
        (token(end=None), "no end"),
        (token(end=True), "no end"),
        (token(end="soon"), "no end"),
        (token(end=NOW - 61), "expired"),
    ],
)
def test_what_is_not_worth_asking_about_is_refused_unquoted(given: str, reason: str) -> None:
    with pytest.raises(Refused, match=reason) as caught:
        expiry(given, NOW, "istio-ca")
    assert not given or given not in str(caught.value)
