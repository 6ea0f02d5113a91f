"""Certificates that a gateway refers to: only good ones are taken, the last good one stays, nothing is shown."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ambient.control.derive_front import Fronts
from tests.support.gateway_records import https, ingress, secret, site, statuses, told
from tests.support.tunnel_certs import Authority

LEAF = site("a.example.com")
OTHER = site("a.example.com")
WELL = ("True", "ResolvedRefs")


def config_map(**data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "ca", "namespace": "shop"}, "data": data}


@pytest.mark.parametrize(
    ("objects", "reason"),
    [
        ([], "InvalidCertificateRef"),
        ([secret("site", replace(LEAF, key="x"))], "InvalidCertificateRef"),
        ([secret("site", replace(LEAF, key=OTHER.key))], "InvalidCertificateRef"),
        ([secret("site", LEAF, namespace="default")], "InvalidCertificateRef"),
    ],
    ids=["none", "no key", "another's key", "elsewhere"],
)
def test_without_a_good_certificate_a_listener_is_not_served(objects: list[dict[str, Any]], reason: str) -> None:
    found = told(ingress(https()), *objects)
    said = statuses(found.listeners[0].conditions)
    assert (said["ResolvedRefs"], said["Programmed"]) == (("False", reason), ("False", "Invalid"))
    assert (found.view.doors, found.view.evidence) == ((), ())
    assert LEAF.key not in repr(found)
    good = told(ingress(https()), secret("site", LEAF))
    assert statuses(good.listeners[0].conditions)["ResolvedRefs"] == WELL
    assert [one.key for one in good.view.evidence] == [LEAF.key]
    assert "PRIVATE" not in repr(good)


def test_a_certificate_of_another_namespace_needs_leave() -> None:
    listener = https()
    listener["tls"]["certificateRefs"][0]["namespace"] = "default"
    found = told(ingress(listener), secret("site", LEAF, namespace="default"))
    assert statuses(found.listeners[0].conditions)["ResolvedRefs"] == ("False", "RefNotPermitted")
    assert found.view.evidence == ()


def test_the_last_good_certificate_stays_when_a_secret_goes_bad_and_goes_with_it() -> None:
    made = Fronts(("cluster.local",), "istio-system")
    assert told(ingress(https()), secret("site", LEAF), made=made).view.doors
    bad = told(ingress(https()), secret("site", replace(LEAF, key=OTHER.key)), made=made)
    assert [one.key for one in bad.view.evidence] == [LEAF.key]
    said = statuses(bad.listeners[0].conditions)
    assert (said["ResolvedRefs"], said["Programmed"][0]) == (("False", "InvalidCertificateRef"), "True")
    assert [one.key for one in told(ingress(https()), secret("site", OTHER), made=made).view.evidence] == [OTHER.key]
    assert told(ingress(https()), made=made).view.evidence == ()


def test_whose_clients_are_let_in_is_said_by_authorities_and_without_any_nobody_is() -> None:
    check = {"frontendValidation": {"caCertificateRefs": [{"kind": "ConfigMap", "name": "ca"}]}}
    root = Authority("enterprise").roots
    found = told(ingress(https("", **check)), secret("site", LEAF), config_map(**{"ca.crt": root}))
    (door,) = found.view.doors
    assert door.clients is not None
    assert {one.name: one.chain for one in found.view.evidence}[door.clients.authority].strip() == root.strip()
    for bad in ([], [config_map(other="x")], [config_map(**{"ca.crt": "x"})]):
        found = told(ingress(https("", **check)), secret("site", LEAF), *bad)
        assert found.view.doors == ()
        assert statuses(found.listeners[0].conditions)["ResolvedRefs"] == ("False", "InvalidCACertificateRef")
