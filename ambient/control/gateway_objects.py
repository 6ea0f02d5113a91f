"""Which objects a Gateway stands for on this cluster, as this installation makes them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from ambient.control.settings import SERVICE, ControlSettings
from ambient.kube.networking import Gateway
from ambient.model.address import DISCOVERY_PORT
from ambient.waypoint.deploy import ACCOUNT, CLASS, Placement, is_managed, service, service_account, trouble
from ambient.waypoint.deployment import Dressing, deployment

_AGENT: Final = ("/usr/bin/python3", "-m", "ambient.waypoint.agent")
_TOKEN: Final = "/var/run/secrets/tokens"
_ROOT: Final = "/var/run/secrets/istio"


def objects_of(settings: ControlSettings) -> Callable[[Gateway], Sequence[dict[str, Any]]]:
    """The objects of each Gateway, in the order to make them; () for one that is none of ours."""
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
        image=settings.waypoint_image,
    )
    dressing = Dressing(
        pull_policy=settings.waypoint_pull_policy,
        pull_secrets=sorted(settings.waypoint_pull_secrets),
        resources=settings.waypoint_resources,
    )

    def wanted(gateway: Gateway) -> Sequence[dict[str, Any]]:
        if gateway.class_name != CLASS or trouble(gateway) or not is_managed(gateway):
            return ()
        made = [service(gateway), deployment(gateway, placement, dressing)]
        # An account that the Gateway names is its owner's: it neither begins nor ends with it.
        return made if ACCOUNT in gateway.annotations else [service_account(gateway), *made]

    return wanted
