"""What connections between the same workloads share."""

from __future__ import annotations

from ambient.model.address import parse_endpoint
from ambient.model.outcome import PeerLabels, ServiceLabels
from ztunnel.telemetry.access_log import json_line, text_line
from ztunnel.telemetry.counters import TrafficCounters
from ztunnel.telemetry.ends import EndsCache
from ztunnel.telemetry.record import ConnectionRecord

A, B = parse_endpoint("10.0.0.1:1000"), parse_endpoint("10.0.0.2:80")
WEB, SHOP = PeerLabels(pod="web-1", namespace="shop"), ServiceLabels("web.shop", "shop", "web")


def record(source: PeerLabels | None = WEB, *, inbound: bool = True, tls: bool = True) -> ConnectionRecord:
    made = ConnectionRecord("uid", A, B, inbound=inbound, now=0.0, unix=0.0)
    made.source_peer, made.service, made.mutual_tls, made.source_identity = source, SHOP, tls, "spiffe://td/ns/a/sa/b"
    return made


def test_connections_of_the_same_sides_share_labels_and_series() -> None:
    cache = EndsCache(TrafficCounters())
    assert cache.of(record()) is cache.of(record())


def test_every_difference_makes_another_entry() -> None:
    cache = EndsCache(TrafficCounters())
    entries = [record(), record(None), record(PeerLabels(pod="web-2")), record(inbound=False), record(tls=False)]
    assert len({id(cache.of(one)) for one in entries}) == len(entries)


def test_labels_that_went_away_are_never_taken_for_new_ones() -> None:
    # Short-lived label values get the memory, hence the identity, of the ones before them.
    cache = EndsCache(TrafficCounters())
    for number in range(200):
        assert cache.of(record(PeerLabels(pod=f"pod-{number}"))).source.pod == f"pod-{number}"


def test_an_identity_that_was_not_proven_is_not_shown() -> None:
    cache = EndsCache(TrafficCounters())
    assert "src.identity" in dict(cache.of(record()).source_fields)
    assert "src.identity" not in dict(cache.of(record(tls=False)).source_fields)


def test_shared_fields_are_written_as_any_others() -> None:
    odd = PeerLabels(pod='a "b"\n', namespace="n")
    fields = EndsCache(TrafficCounters()).of(record(odd)).source_fields
    plain = [(key, str(value)) for key, value in fields]
    assert text_line(0.0, "info", "s", "m", [fields]) == text_line(0.0, "info", "s", "m", plain)
    assert json_line(0.0, "info", "s", "m", [fields]) == json_line(0.0, "info", "s", "m", plain)
