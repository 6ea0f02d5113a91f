"""Labels in Istio's order."""

from __future__ import annotations

from ambient.model.outcome import PeerLabels, ServiceLabels
from ambient.model.traffic import FLAGS, MUTUAL_TLS, TRAFFIC, traffic_labels, with_flags

CLIENT = PeerLabels("client", "client-1", "mesh", "client-svc", "v1", "p", "Kubernetes", "r", "z")


def test_every_label_has_its_value_and_what_is_unknown_says_so() -> None:
    values = traffic_labels(
        "source",
        CLIENT,
        "spiffe://c",
        PeerLabels(),
        "",
        ServiceLabels("h.example", "ns", "h"),
        security=MUTUAL_TLS,
    )
    named = dict(zip(TRAFFIC, values, strict=True))
    assert named["source_workload"] == "client"
    assert named["source_app"] == named["source_canonical_service"] == "client-svc"
    assert named["source_version"] == "v1"
    assert named["source_principal"] == "spiffe://c"
    assert named["destination_service"] == "h.example"
    assert named["destination_workload"] == named["destination_principal"] == "unknown"
    assert named["connection_security_policy"] == "mutual_tls"
    assert (named["request_protocol"], named["response_flags"]) == ("tcp", "-")
    assert (named["source_region"], named["source_zone"], named["destination_zone"]) == ("r", "z", "unknown")


def test_flags_replace_only_the_flags() -> None:
    values = traffic_labels("source", CLIENT, "", CLIENT, "", ServiceLabels(), security="")
    changed = with_flags(values, "DENY")
    assert changed[FLAGS] == "DENY"
    assert changed[:FLAGS] + changed[FLAGS + 1 :] == values[:FLAGS] + values[FLAGS + 1 :]
    assert with_flags(values, "-") is values
