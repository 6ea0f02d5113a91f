"""What a policy with targetRefs is attached to: a waypoint's affair, of which a ztunnel never hears. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from ambient.control.derive_closed import names_targets
from ambient.control.derive_waypoint import bind, waypoint
from ambient.control.derive_world import World
from ambient.control.gateway_owner import is_ingress_class, is_ours
from ambient.kube.networking import Gateway, GatewayClass, ServiceEntry
from ambient.kube.objects import (
    AuthorizationPolicy,
    Condition,
    RefusedObject,
    RequestAuthentication,
    Service,
    Telemetry,
)
from ambient.kube.policies import TargetRef
from ambient.waypoint.deploy import CLASS

Targeted = AuthorizationPolicy | RequestAuthentication | Telemetry
ATTACHED: Final = "WaypointAccepted"


def telemetry_conditions(record: Telemetry) -> tuple[Condition, ...]:
    """Of one without targetRefs: () when it is for a namespace or the mesh."""
    if record.selector is None:
        return (Condition(ATTACHED, "True", "Accepted", "for the waypoints of its namespace, or of the mesh"),)
    why = "spec.selector: means pods with a proxy of their own, and there are none; name a target in targetRefs"
    return (Condition(ATTACHED, "False", "Invalid", why),)


def target_condition(record: Targeted, world: World) -> Condition:
    """Of a policy with at least one targetRef."""
    results = [_one(record, ref, world) for ref in record.target_refs]
    bound = [message for reason, message in results if reason == "Accepted"]
    failed = [(reason, message) for reason, message in results if reason != "Accepted"]
    failed += [("Invalid", why) for why in unfetched(record)] if bound else []
    if not failed:
        return Condition(ATTACHED, "True", "Accepted", f"bound to {', '.join(dict.fromkeys(bound))}")
    messages = ", ".join(message for _, message in failed)
    if bound:
        return Condition(
            ATTACHED, "True", "PartiallyInvalid", f"bound to {', '.join(dict.fromkeys(bound))}; {messages}"
        )
    return Condition(ATTACHED, "False", failed[0][0], messages)


def unfetched(record: Targeted) -> Iterator[str]:
    """Rules whose keys are neither written nor fetched, each with what comes of it."""
    for number, rule in enumerate(record.rules) if isinstance(record, RequestAuthentication) else ():
        then = f"every token of issuer {rule.issuer!r} is refused by this rule"
        if rule.keys_url and not rule.keys_url.startswith("https://"):
            yield f"spec.jwtRules[{number}].jwksUri: keys are fetched by https only, so {then}"
        elif not rule.keys and not rule.keys_url:
            yield f"spec.jwtRules[{number}].jwks: there are no keys, so {then}; write the key set in jwks, or jwksUri"


def has_targets(refused: RefusedObject) -> bool:
    """Whether what cannot be read would have been attached to something."""
    spec = refused.raw.get("spec")
    return isinstance(spec, Mapping) and names_targets(spec)


def _one(record: Targeted, ref: TargetRef, world: World) -> tuple[str, str]:
    """A reason, and the waypoint's name ("Accepted") or why not."""
    namespace = ref.namespace or record.namespace
    title = f"{ref.kind} {namespace}/{ref.name}"
    if namespace != record.namespace:
        return "Invalid", f"{title} is not in the namespace of the policy"
    match ref.group, ref.kind:
        case "" | "core", "Service":
            service = world.find(Service, namespace, ref.name)
            return _behind(service, title, world)
        case "networking.istio.io", "ServiceEntry":
            return _behind(world.find(ServiceEntry, namespace, ref.name), title, world)
        case "gateway.networking.k8s.io", "Gateway":
            gateway = world.find(Gateway, namespace, ref.name)
            if gateway is None:
                return "TargetNotFound", f"{title} was not found"
            of_class = world.find(GatewayClass, "", gateway.class_name)
            if gateway.class_name != CLASS and is_ours(gateway, of_class, world.settings.ingress_classes):
                return "Accepted", f"{namespace}/{ref.name}"
            found = waypoint(world, namespace, ref.name)
            return ("Accepted", str(found)) if found else ("AncestorNotBound", f"{title} is not ready")
        case "gateway.networking.k8s.io", "GatewayClass":
            if record.namespace != world.settings.root_namespace:
                where = world.settings.root_namespace
                return "Invalid", f"GatewayClass {ref.name}: only policies in namespace {where} may name a class"
            named = world.find(GatewayClass, "", ref.name)
            if named is None:
                return "TargetNotFound", f"GatewayClass {ref.name} was not found"
            if ref.name not in (CLASS, *world.settings.ingress_classes) and not is_ingress_class(named):
                return "AncestorNotBound", f"GatewayClass {ref.name} is of {named.controller}, and none of ours"
            return "Accepted", f"GatewayClass {ref.name}"
    return "Invalid", f"{ref.group or 'core'}/{ref.kind} is nothing that a policy can be attached to"


def _behind(target: Service | ServiceEntry | None, title: str, world: World) -> tuple[str, str]:
    if target is None:
        return "TargetNotFound", f"{title} was not found"
    name = bind(world, target, target.labels, "service").name
    return ("Accepted", name) if name else ("AncestorNotBound", f"{title} is not bound to a waypoint")
