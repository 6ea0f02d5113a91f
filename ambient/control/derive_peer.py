"""PeerAuthentication -> policies that refuse plaintext. Pure.

The mode of a workload: that of the policy that selects it, else of its namespace, else of the root namespace; the
oldest wins within a level; UNSET inherits; nothing means PERMISSIVE, and DISABLE does too (the HBONE listener is
there in any case). STRICT becomes one shared DENY of peers without identity, ports with a mode of their own a DENY
of this policy's own. Names have underscores, which no Kubernetes object can have, so they collide with nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from ambient.control.derive_policy import readable_selector
from ambient.control.derive_select import ByLabel
from ambient.kube.objects import PeerAuthentication, Pod, Records, RefusedObject
from ambient.kube.policies import PeerMtls
from ambient.model.policy import Action, Authorization, Clause, Match, PolicyScope, Rule, StringMatch, StringMatchKind

STRICT_NAME = "istio_converted_static_strict"
CONVERTED = "converted_peer_authentication_"

_PLAINTEXT: Clause = (Match(not_principals=(StringMatch(StringMatchKind.PRESENCE),)),)


@dataclass(frozen=True, slots=True)
class PeerModes:
    """The policies to send and, for every pod, which of them apply."""

    policies: Mapping[str, Authorization]
    _root_namespace: str
    _mesh: str = "UNSET"
    _namespaces: Mapping[str, str] = field(default_factory=dict)
    _by_key: Mapping[str, PeerAuthentication] = field(default_factory=dict)
    _selectors: ByLabel = field(default_factory=ByLabel)

    def selecting(self, pod: Pod) -> tuple[str, ...]:
        """Keys of the policies that a pod's mode means: none, the shared one or its own."""
        inherited = self.inherited(pod.namespace)
        chosen = _oldest(self._by_key[key] for key in self._selectors.names(pod.namespace, pod.labels))
        static = f"{self._root_namespace}/{STRICT_NAME}"
        if chosen is None:
            return (static,) if inherited == "STRICT" else ()
        mode = inherited if chosen.mtls.mode == "UNSET" else chosen.mtls.mode
        own = f"{chosen.namespace}/{CONVERTED}{chosen.name}"
        if own in self.policies:
            return (own,)
        return (static,) if mode == "STRICT" else ()

    def inherited(self, namespace: str) -> str:
        """The mode of the namespace, else of the mesh."""
        mode = self._namespaces.get(namespace, "UNSET")
        return self._mesh if mode == "UNSET" else mode


def peer_modes(records: Records, root_namespace: str) -> PeerModes:
    """Read every PeerAuthentication; an invalid one without a good version to stand in counts as STRICT."""
    listed = [*records.of(PeerAuthentication)]
    listed += [
        _closed(refused)
        for refused in records.refused
        if refused.kind == PeerAuthentication.kind and not refused.stands
    ]
    wide = [policy for policy in listed if policy.selector is None]
    narrow = [policy for policy in listed if policy.selector is not None and policy.namespace != root_namespace]
    mesh = _oldest(policy for policy in wide if policy.namespace == root_namespace)
    names = {policy.namespace for policy in wide if policy.namespace != root_namespace}
    chosen = {name: _oldest(policy for policy in wide if policy.namespace == name) for name in names}
    modes = PeerModes(
        MappingProxyType({}),
        root_namespace,
        "UNSET" if mesh is None else mesh.mtls.mode,
        {name: policy.mtls.mode for name, policy in chosen.items() if policy is not None},
        {policy.key: policy for policy in narrow},
    )
    policies: dict[str, Authorization] = {}
    if listed:
        strict = _deny(root_namespace, STRICT_NAME, ((_PLAINTEXT,),))
        policies[strict.key] = strict
    for policy in narrow:
        modes._selectors.add(policy.namespace, policy.selector or {}, policy.key)
        rules = _port_rules(policy.mtls, modes.inherited(policy.namespace))
        if rules:
            converted = _deny(policy.namespace, f"{CONVERTED}{policy.name}", rules)
            policies[converted.key] = converted
    return PeerModes(
        MappingProxyType(policies), root_namespace, modes._mesh, modes._namespaces, modes._by_key, modes._selectors
    )


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
    """By creation time, then by name; one that was never stored comes last."""
    return min(policies, key=lambda policy: (policy.created or "~", policy.key), default=None)


def _closed(refused: RefusedObject) -> PeerAuthentication:
    spec = refused.raw.get("spec")
    selector = readable_selector(spec) if isinstance(spec, Mapping) else None
    return PeerAuthentication(
        name=refused.name, namespace=refused.namespace, selector=selector, mtls=PeerMtls("STRICT")
    )
