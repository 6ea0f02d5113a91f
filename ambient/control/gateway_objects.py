"""Which objects a Gateway stands for on this cluster, as this installation makes them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from ambient.control.gateway_owner import is_ours
from ambient.control.settings import SERVICE, ControlSettings
from ambient.kube.networking import Gateway, GatewayClass
from ambient.kube.objects import Records
from ambient.model.address import DISCOVERY_PORT
from ambient.waypoint.deploy import ACCOUNT, Placement, is_ingress, is_managed, service, service_account, trouble
from ambient.waypoint.deployment import Dressing, deployment

_AGENT: Final = ("/usr/bin/python3", "-m", "ambient.waypoint.agent")
_TOKEN: Final = "/var/run/secrets/tokens"
_ROOT: Final = "/var/run/secrets/istio"


def objects_of(settings: ControlSettings) -> Callable[[Records, Gateway], Sequence[dict[str, Any]]]:
    """The objects of each Gateway, in the order to make them; () for one that is none of ours."""
    waypoints = _maker(settings, settings.waypoint_image, settings.waypoint_resources)
    ingress = _maker(settings, settings.gateway_image, settings.gateway_resources)

    def wanted(records: Records, gateway: Gateway) -> Sequence[dict[str, Any]]:
        make = ingress if is_ingress(gateway) else waypoints
        of_class = records.find(GatewayClass, "", gateway.class_name)
        if make is None or not is_ours(gateway, of_class, ()) or trouble(gateway) or not is_managed(gateway):
            return ()
        return make(gateway)

    return wanted


def _maker(
    settings: ControlSettings, image: str, resources: Mapping[str, Any]
) -> Callable[[Gateway], Sequence[dict[str, Any]]] | None:
    """None where there is no image to make pods of."""
    if not image:
        return None
    placement = Placement(
        command=_AGENT,
        environment={
            "XDS_ADDRESS": f"https://{SERVICE}.{settings.namespace}.svc:{DISCOVERY_PORT}",
            "CLUSTER_ID": settings.cluster,
            "TRUST_DOMAIN": settings.trust_domain,
            "LOG_LEVEL": settings.log_level.replace("warning", "warn"),
        },
        token=_TOKEN,
        root=_ROOT,
        image=image,
    )
    dressing = Dressing(
        pull_policy=settings.waypoint_pull_policy,
        pull_secrets=sorted(settings.waypoint_pull_secrets),
        resources=resources,
    )

    def make(gateway: Gateway) -> Sequence[dict[str, Any]]:
        made = [service(gateway), deployment(gateway, placement, dressing)]
        # An account that the Gateway names is its owner's: it neither begins nor ends with it.
        return made if ACCOUNT in gateway.annotations else [service_account(gateway), *made]

    return make
