"""Which Secrets and ConfigMaps Gateways of ours refer to, and may, and those that are for the TLS which their proxies
begin: these are read, and no others. Pure.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from typing import Final

from ambient.control.derive_attached import GROUP
from ambient.control.gateway_owner import is_ours
from ambient.kube import syntax
from ambient.kube.backend_tls import BackendTLSPolicy
from ambient.kube.networking import DestinationRule, Gateway, GatewayClass, ObjectRef
from ambient.kube.objects import ConfigMap, Record, Records, ReferenceGrant, Secret
from ambient.kube.resource import Name
from ambient.waypoint.deploy import is_ingress

_KINDS = (Secret.kind, ConfigMap.kind)
ISTIO: Final = "networking.istio.io"
AUTHORITY_SUFFIX: Final = "-cacert"
"""Of the Secret with the authority beside one with a certificate."""
CONCERNED = (Gateway.kind, GatewayClass.kind, ReferenceGrant.kind, DestinationRule.kind, BackendTLSPolicy.kind)
"""Kinds of the objects that the answer rests on."""


def wanted(records: Records, ingress_classes: Collection[str], root_namespace: str) -> tuple[Name, ...]:
    """What clients are served with first. `ingress_classes`: names of those that are ours whoever has made them."""
    found, homes = set(), set()
    for gateway in records.of(Gateway):
        of_class = records.find(GatewayClass, "", gateway.class_name)
        if not is_ours(gateway, of_class, ingress_classes):
            continue
        homes.add(gateway.namespace)
        for ref in _refs(gateway):
            namespace = ref.namespace or gateway.namespace
            if namespace == gateway.namespace or granted(records, gateway, ref):
                found.add(Name(ref.kind, namespace, ref.name))
    begun = _for_originations(records, homes, root_namespace) if homes else ()
    return tuple(dict.fromkeys((*_sound(found), *_sound(begun))))


def _sound(names: Iterable[Name]) -> list[Name]:
    """No object has another name: who refers to one is told that there is none."""
    return sorted(one for one in set(names) if not syntax.dns_subdomain(one.name))


def _for_originations(records: Records, homes: Collection[str], root_namespace: str) -> Iterator[Name]:
    """`homes`: the namespaces of our proxies, whose Secrets DestinationRules name."""
    for policy in records.of(BackendTLSPolicy):
        yield from (Name(one.kind, policy.namespace, one.name) for one in policy.authorities if one.kind in _KINDS)
    for rule in records.of(DestinationRule):
        every = (rule.traffic, *(subset.traffic for subset in rule.subsets))
        told = [one.tls for policy in every for one in (policy, *(of_port for _, of_port in policy.ports))]
        for name in {tls.credential for tls in told if tls is not None and tls.credential}:
            for home in homes:
                ref = ObjectRef("", Secret.kind, name, home)
                if rule.namespace in (home, root_namespace) or granted(records, rule, ref, group=ISTIO):
                    yield from (Name(Secret.kind, home, one) for one in (name, f"{name}{AUTHORITY_SUFFIX}"))


def granted(records: Records, record: Record, ref: ObjectRef, group: str = GROUP) -> bool:
    """A record of that group may refer to what is in another namespace."""
    return any(
        (one.group, one.kind, one.namespace) == (group, record.kind, record.namespace)
        and one.to_group in ("", "core")
        and (one.to_kind, one.name or ref.name) == (ref.kind, ref.name)
        for grant in records.of(ReferenceGrant)
        if grant.namespace == ref.namespace
        for one in grant.grants
    )


def _refs(gateway: Gateway) -> Iterator[ObjectRef]:
    found = [gateway.own] if gateway.own is not None else []
    for listener in gateway.listeners if is_ingress(gateway) else ():
        found += listener.certificates
        found += listener.clients.authorities if listener.clients is not None else ()
    yield from (ref for ref in found if ref.group in ("", "core") and ref.kind in _KINDS)
