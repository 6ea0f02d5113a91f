"""BackendTLSPolicies: which one is in force for a port of a service, and what is said of it. Pure, but for the memory
of the evidence that it is given.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from ambient.control.derive_evidence import EvidenceStore, Missing
from ambient.kube.backend_tls import BackendTLSPolicy, TlsTarget
from ambient.kube.networking import ClientCheck, ServiceEntry
from ambient.kube.objects import Condition, Records
from ambient.kube.objects import Service as KubeService
from ambient.model.workload import Service
from ambient.waypoint.evidence import Evidence
from ambient.waypoint.front import Origination
from ambient.waypoint.origination import complaint

_CORE: Final = ("", "core")


@dataclass(frozen=True, slots=True)
class Section:
    """A policy on a service; `ports`: those that it names, None: all. `rival`: an older one has these already."""

    policy: BackendTLSPolicy
    ports: frozenset[int] | None
    rival: str = ""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is said of a policy (by key) on one service: Accepted, then ResolvedRefs."""

    policy: str
    conditions: tuple[Condition, Condition]


class BackendTls:
    """Of one snapshot."""

    def __init__(self, policies: Iterable[BackendTLSPolicy], records: Records) -> None:
        self._records = records
        self._targeting: dict[tuple[str, str, str], list[tuple[TlsTarget, BackendTLSPolicy]]] = {}
        for one in sorted(policies, key=lambda one: (one.created or "~", one.key)):
            for target in one.targets:
                kind = target.kind if target.group in (*_CORE, "networking.istio.io") else ""
                self._targeting.setdefault((kind, one.namespace, target.name), []).append((target, one))

    def of(self, service: Service) -> tuple[Section, ...]:
        """Those that target it, the oldest first."""
        kind, names = self._named(service)
        found: list[Section] = []
        held: dict[str, str] = {}
        for target, policy in self._targeting.get((kind, service.namespace, service.name), ()):
            ports = None if not target.section else frozenset(names.get(target.section, ()))
            found.append(Section(policy, ports, held.get(target.section, "")))
            held.setdefault(target.section, policy.key)
        return tuple(found)

    def _named(self, service: Service) -> tuple[str, dict[str, list[int]]]:
        """What kind of object the service is, and its ports by their names."""
        known = self._records.find(KubeService, service.namespace, service.name)
        if known is not None and service.hostname.startswith(f"{service.name}.{service.namespace}.svc."):
            return KubeService.kind, {one.name: [one.port] for one in known.ports}
        entry = self._records.find(ServiceEntry, service.namespace, service.name)
        return ServiceEntry.kind, {one.name: [one.number] for one in entry.ports} if entry is not None else {}

    def in_force(self, sections: Sequence[Section], port: int) -> BackendTLSPolicy | None:
        """That which names the port goes before one for all."""
        own = [one for one in sections if not one.rival]
        named = [one.policy for one in own if one.ports is not None and port in one.ports]
        return next(iter(named or [one.policy for one in own if one.ports is None]), None)

    def origination(
        self, policy: BackendTLSPolicy, evidence: EvidenceStore, system: Callable[[], Evidence]
    ) -> Origination | Missing:
        """What is to be spoken, or why nothing is."""
        authority, wrong = _authority(policy, evidence, system)
        if authority is None:
            return wrong or Missing("NoValidCACertificate", "no authority")
        made = Origination(policy.hostname, policy.names or (policy.hostname,), authority)
        why = complaint(made)
        return Missing("Invalid", f"spec.validation: {why}") if why else made

    def verdicts(
        self, sections: Iterable[Section], evidence: EvidenceStore, system: Callable[[], Evidence]
    ) -> Iterator[Verdict]:
        for one in sections:
            authority, wrong = _authority(one.policy, evidence, system)
            resolved = Condition("ResolvedRefs", "True", "ResolvedRefs", "All references resolved")
            if wrong is not None:
                field = "wellKnownCACertificates" if one.policy.system else "caCertificateRefs"
                resolved = Condition("ResolvedRefs", "False", wrong.reason, f"spec.validation.{field}: {wrong.why}")
            accepted = Condition("Accepted", "True", "Accepted", "TLS is begun with what it targets")
            if one.rival:
                accepted = Condition("Accepted", "False", "Conflicted", f"{one.rival} is older")
            elif one.ports is not None and not one.ports:
                accepted = Condition("Accepted", "False", "TargetNotFound", "spec.targetRefs: no port of sectionName")
            elif authority is None:
                why = "no authority can be had: what it targets is not sent to"
                accepted = Condition("Accepted", "False", "NoValidCACertificate", why)
            yield Verdict(one.policy.key, (accepted, resolved))


def _authority(
    policy: BackendTLSPolicy, evidence: EvidenceStore, system: Callable[[], Evidence]
) -> tuple[Evidence | None, Missing | None]:
    if policy.system:
        try:
            return system(), None
        except Missing as error:
            return None, error
    found, wrong = evidence.authority(policy.namespace, ClientCheck(policy.authorities), lambda ref: True, newest=True)
    if wrong is not None and wrong.reason == "InvalidCACertificateKind":
        wrong = Missing("InvalidKind", wrong.why)
    return replace(found, name=f"upstream/{found.name}") if found is not None else None, wrong
