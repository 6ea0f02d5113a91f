"""What cannot be read and may ask for TLS keeps plain text inside of the mesh."""

from __future__ import annotations

from typing import Any

import pytest

from ambient.errors import InvalidInput
from ambient.kube.objects import RefusedObject
from tests.ambient.control.test_derive_origination import BOTH, HOST, INSIDE, addresses, look


def unreadable(kind: str, spec: Any, *, stands: bool = False, namespace: str = "shop") -> RefusedObject:
    return RefusedObject(kind, namespace, "r", InvalidInput("x", "y", "z"), {"spec": spec}, stands)


@pytest.mark.parametrize(
    ("refused", "sent"),
    [
        (unreadable("DestinationRule", {"host": HOST, "trafficPolicy": {"tls": 3}}), INSIDE),
        (unreadable("DestinationRule", {"host": HOST, "trafficPolicy": {"tls": 3}}, stands=True), BOTH),
        (unreadable("DestinationRule", {"host": HOST, "trafficPolicy": {"pool": 3}}), BOTH),
        (unreadable("DestinationRule", {"host": "b.example.com", "trafficPolicy": {"tls": 3}}), BOTH),
        (unreadable("DestinationRule", {"trafficPolicy": {"tls": 3}}), INSIDE),
        (unreadable("DestinationRule", {"trafficPolicy": {"tls": 3}}, namespace="other"), BOTH),
        (unreadable("DestinationRule", {"host": HOST, "trafficPolicy": {"tls": 3}}, namespace="other"), BOTH),
        (unreadable("DestinationRule", {"host": "*", "trafficPolicy": {"tls": 3}}, namespace="other"), BOTH),
        (unreadable("DestinationRule", {"host": HOST, "trafficPolicy": {"tls": 3}}, namespace="istio-system"), INSIDE),
        (unreadable("DestinationRule", {"host": "*", "trafficPolicy": {"tls": 3}}, namespace="istio-system"), INSIDE),
        (unreadable("DestinationRule", 3), INSIDE),
        (unreadable("BackendTLSPolicy", {"targetRefs": [{"name": "web"}]}), INSIDE),
        (unreadable("BackendTLSPolicy", {"targetRefs": [{"name": "other"}]}), BOTH),
        (unreadable("BackendTLSPolicy", {"targetRefs": [{}]}), INSIDE),
        (unreadable("BackendTLSPolicy", 3), INSIDE),
        (unreadable("BackendTLSPolicy", 3, namespace="other"), BOTH),
    ],
)
def test_what_cannot_be_read_and_may_ask_for_tls_keeps_plain_text_inside(
    refused: RefusedObject, sent: list[str]
) -> None:
    _, web = look(refused=(refused,))
    assert addresses(web.ports[0]) == sent
