"""Labels from what a peer says of itself."""

from __future__ import annotations

from ambient.model.baggage import LONGEST, baggage_labels
from ambient.model.outcome import PeerLabels


def test_known_keys_become_labels_and_others_are_passed_over() -> None:
    text = "k8s.namespace.name=shop,k8s.deployment.name=web,service.name=w,colour=red,service.version="
    assert baggage_labels([text]) == PeerLabels(workload="web", namespace="shop", canonical_service="w")


def test_a_value_is_no_longer_than_any_name() -> None:
    assert len(baggage_labels([f"service.name={'x' * 5000}"]).canonical_service) == LONGEST
