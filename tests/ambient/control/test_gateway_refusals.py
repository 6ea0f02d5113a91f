"""What a gateway's proxy refuses of what its listeners rest on: they say so, and what was good before stays."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from ambient.ca.token import Caller
from ambient.control.waypoints import Waypoints
from ambient.waypoint.typed import LISTENER_TYPE, SECRET_TYPE
from ambient.xds.messages import DeltaRequest
from ambient.xds.server import DeltaStream
from tests.support.gateway_records import https, ingress, secret, site, statuses
from tests.support.waypoint_records import derived, scene

KEY, OWN, NAME = "Gateway/shop/front", Caller("n1", "shop", "front-istio", "u"), "server/shop/site"
OLD, NEW, NEXT = (site("a.example.com") for _ in range(3))
WELL = (("True", "ResolvedRefs"), ("True", "Programmed"))
REFUSED = ("False", "InvalidCertificateRef")


def tell(made: Waypoints, *objects: dict[str, Any]) -> None:
    found = scene(ingress(https("a.example.com"), https("b.example.com", "other")), secret("other", NEXT), *objects)
    made.update(found, derived(found))


def opened(made: Waypoints) -> DeltaStream:
    stream = made.open(OWN, "front")
    stream.receive(DeltaRequest(type_url=LISTENER_TYPE))
    stream.receive(DeltaRequest(type_url=SECRET_TYPE, subscribe=(NAME, "server/shop/other")))
    return stream


def settle(made: Waypoints, stream: DeltaStream, refused: Collection[str] = ()) -> list[str]:
    """The keys of which of these were told in the certificate, in turn; those that are `refused` are not taken."""
    told = []
    while (response := stream.pull()) is not None:
        bodies = [one.body.decode(errors="replace") for one in response.resources if one.name == NAME]
        keys = [one for body in bodies for one in (OLD.key, NEW.key, NEXT.key) if one in body]
        told += keys
        error = "OCSP response is required" if set(keys) & set(refused) else None
        stream.receive(DeltaRequest(type_url=response.type_url, nonce=response.nonce, error=error))
        made.heard(stream)
    return told


def said(made: Waypoints) -> list[tuple[tuple[str, str], ...]]:
    found = made.listeners_of(KEY)
    assert found is not None
    every = [statuses(one.conditions) for one in found]
    return [(one["ResolvedRefs"], one["Programmed"]) for one in every]


def begun(*objects: dict[str, Any]) -> Waypoints:
    made = Waypoints(("cluster.local",), "istio-system", "cluster.local")
    tell(made, *objects)
    return made


def test_a_refused_certificate_is_said_of_the_listeners_that_have_it_and_no_others() -> None:
    made = begun(secret("site", NEW))
    stream = opened(made)
    assert said(made) == [WELL, WELL]
    assert settle(made, stream, [NEW.key])[:1] == [NEW.key]
    assert said(made) == [(REFUSED, ("False", "Invalid")), WELL]
    (listener, _) = made.listeners_of(KEY) or ()
    (why,) = (one.message for one in listener.conditions if one.type == "ResolvedRefs")
    assert why == "Secret/shop/site: its proxies refuse it: OCSP response is required"
    tell(made, secret("site", NEXT))
    assert settle(made, stream, [NEW.key]) == [NEXT.key]
    assert said(made) == [WELL, WELL]


def test_the_version_that_proxies_have_taken_stays_when_the_next_one_is_refused() -> None:
    made = begun(secret("site", OLD))
    stream = opened(made)
    assert settle(made, stream) == [OLD.key]
    tell(made, secret("site", NEW))
    assert settle(made, stream, [NEW.key]) == [NEW.key, OLD.key]
    assert said(made) == [(REFUSED, WELL[1]), WELL]
    assert settle(made, opened(made), [NEW.key]) == [OLD.key], "a new proxy needs one, too"
    tell(made, secret("site", NEXT))
    assert settle(made, stream, [NEW.key]) == [NEXT.key]
    assert said(made) == [WELL, WELL]


def test_what_no_proxy_has_taken_is_no_good_version_and_a_certificate_that_is_gone_leaves_none() -> None:
    made = begun(secret("site", OLD))
    stream = opened(made)
    assert settle(made, stream) == [OLD.key]
    tell(made)
    settle(made, stream)
    tell(made, secret("site", NEW))
    assert OLD.key not in settle(made, stream, [NEW.key])
    tell(made, secret("site", NEXT))
    assert OLD.key not in settle(made, stream, [NEW.key, NEXT.key])
    assert said(made) == [(REFUSED, ("False", "Invalid")), WELL]


def test_when_who_refused_has_gone_the_new_one_is_tried_again() -> None:
    made = begun(secret("site", OLD))
    stream = opened(made)
    settle(made, stream)
    tell(made, secret("site", NEW))
    settle(made, stream, [NEW.key])
    assert made.close(stream)
    assert said(made) == [WELL, WELL]
    assert settle(made, opened(made)) == [NEW.key]
