"""What proxies ask of the rate limit service, as messages."""

from __future__ import annotations

from typing import Any

from ambient.ratelimit.asked import REQUEST

NAME = "HTTPRoute/shop/web"


def ask(*descriptors: dict[str, str], domain: str = "ambient", hits: int = 0) -> Any:
    """A request of these descriptors, each with its entries."""
    made = REQUEST(domain=domain, hits_addend=hits)
    for one in descriptors:
        descriptor = made.descriptors.add()
        for key, value in one.items():
            descriptor.entries.add(key=key, value=value)
    return made


def limit(rate: str = "5/60", route: str = NAME, **more: str) -> dict[str, str]:
    return {"route": route, "rate": rate, **more}
