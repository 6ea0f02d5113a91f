"""What is kept of a gateway, and until when."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import replace

from ambient.control.derive_gateway import Laid, Told
from ambient.control.derive_seen import SeenGateway, SeenGateways
from ambient.kube.networking import Gateway
from ambient.kube.objects import Condition, parse_object
from ambient.waypoint.door import GatewayView
from ambient.xds.steps import finish
from tests.support.gateway_records import ingress


class Looks:
    """How often it is looked at what is on a gateway, and at the rest."""

    def __init__(self) -> None:
        self.laid = self.told = 0
        self.seen = SeenGateways(self._lay, self._look)
        gateway = parse_object(ingress(), "test")
        assert isinstance(gateway, Gateway)
        self.gateway = gateway

    def _lay(self, gateway: Gateway) -> Generator[None, None, Laid]:
        self.laid += 1
        yield
        return Laid(gateway, (), {}, {})

    def _look(self, laid: Laid) -> SeenGateway:
        self.told += 1
        view = GatewayView(laid.gateway.namespace, laid.gateway.name, ())
        told = Told(view, (), laid.parents, Condition("Accepted", "True", "Accepted", ""), True)
        return SeenGateway(laid, told, frozenset({"shop/web"}))

    def after(self) -> tuple[int, int]:
        finish(self.seen.telling(self.gateway))
        return self.laid, self.told


def test_what_is_on_a_gateway_outlasts_endpoints_and_keys() -> None:
    looks = Looks()
    assert [looks.after(), looks.after()] == [(1, 1), (1, 1)]
    looks.seen.touch("shop/other")
    assert looks.after() == (1, 1)
    looks.seen.touch("shop/web")
    assert looks.after() == (1, 2)
    looks.seen.renew()
    assert looks.after() == (1, 3)
    looks.seen.forget()
    assert looks.after() == (2, 4)
    looks.gateway = replace(looks.gateway, annotations={"a": "b"})
    assert looks.after() == (3, 5)
