"""PeerAuthentication -> policies that refuse plaintext. Pure.

The mode of a workload: that of the policy that selects it, else of its namespace, else of the root namespace; the
oldest wins within a level; UNSET inherits; nothing means PERMISSIVE, and DISABLE does too (the HBONE listener is
there in any case). STRICT becomes one shared DENY of peers without identity, ports with a mode of their own a DENY
of this policy's own. Names have underscores, which no Kubernetes object can have, so they collide with nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from ambient.control.derive_world import World, age
from ambient.kube.objects import PeerAuthentication
from ambient.kube.policies import PeerMtls
from ambient.model.policy import Action, Authorization, Clause, Match, PolicyScope, Rule, StringMatch, StringMatchKind

STRICT_NAME: Final = "istio_converted_static_strict"
CONVERTED: Final = "converted_peer_authentication_"

_PLAINTEXT: Final[Clause] = (Match(not_principals=(StringMatch(StringMatchKind.PRESENCE),)),)


def peer_policies(world: World, namespace: str, labels: Mapping[str, str]) -> tuple[str, ...]:
    """Names of the policies that a workload's mode means: none, the shared one or its own."""
    inherited = _inherited(world, namespace)
    chosen = _oldest(world.peers_selecting(namespace, labels))
    static = f"{world.settings.root_namespace}/{STRICT_NAME}"
    if chosen is None:
        return (static,) if inherited == "STRICT" else ()
    if _port_rules(chosen.mtls, inherited):
        return (f"{chosen.namespace}/{CONVERTED}{chosen.name}",)
    mode = inherited if chosen.mtls.mode == "UNSET" else chosen.mtls.mode
    return (static,) if mode == "STRICT" else ()


def converted(world: World, record: PeerAuthentication) -> Authorization | None:
    """The policy of its own that a PeerAuthentication becomes; None where the shared one says it all."""
    if record.selector is None or record.namespace == world.settings.root_namespace:
        return None
    rules = _port_rules(record.mtls, _inherited(world, record.namespace))
    return _deny(record.namespace, f"{CONVERTED}{record.name}", rules) if rules else None


def shared(world: World) -> Authorization | None:
    """The policy that STRICT means; there as soon as there is any PeerAuthentication."""
    return _deny(world.settings.root_namespace, STRICT_NAME, ((_PLAINTEXT,),)) if world.has_peers() else None


def _inherited(world: World, namespace: str) -> str:
    """The mode of the namespace, else of the mesh."""
    root = world.settings.root_namespace
    for level in (namespace, root) if namespace != root else (root,):
        chosen = _oldest(world.wide_peers(level))
        if chosen is not None and chosen.mtls.mode != "UNSET":
            return chosen.mtls.mode
    return "UNSET"


def _port_rules(mtls: PeerMtls, inherited: str) -> tuple[Rule, ...]:
    """The DENY rules that say what the shared one cannot: () when no port differs from the rest."""
    strict = (inherited if mtls.mode == "UNSET" else mtls.mode) == "STRICT"
    if strict:
        open_ports = [port for port, mode in mtls.ports if mode in ("PERMISSIVE", "DISABLE")]
        if not open_ports:
            return ()
        return ((_PLAINTEXT, *((Match(not_destination_ports=(port,)),) for port in open_ports)),)
    closed = [port for port, mode in mtls.ports if mode == "STRICT"]
    presence = (StringMatch(StringMatchKind.PRESENCE),)
    return tuple(((Match(not_principals=presence, destination_ports=(port,)),),) for port in closed)


def _deny(namespace: str, name: str, rules: tuple[Rule, ...]) -> Authorization:
    return Authorization(
        name=name, namespace=namespace, scope=PolicyScope.WORKLOAD_SELECTOR, action=Action.DENY, rules=rules
    )


def _oldest(policies: Iterable[PeerAuthentication]) -> PeerAuthentication | None:
    return min(policies, key=age, default=None)
