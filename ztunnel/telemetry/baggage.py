"""The `baggage` fields among those of a tunnel's head."""

from __future__ import annotations

from ambient.model.baggage import baggage_labels
from ambient.model.outcome import PeerLabels
from ztunnel.hbone.headers import Fields


def read_baggage(fields: Fields, principal: str = "") -> PeerLabels:
    """Labels from every `baggage` field, as `baggage_labels` reads them."""
    return baggage_labels([value.decode("utf-8", "replace") for name, value in fields if name == b"baggage"], principal)
