"""TLS that proxies begin with applications: what DestinationRules and BackendTLSPolicies ask for, and what is said of
it. Pure, but that good certificates are remembered.

Where it is asked for and cannot be had nothing is sent: never in plain text.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Final, TypeVar

from ambient.control.derive_backend_tls import BackendTls, Verdict
from ambient.control.derive_evidence import EvidenceStore, Missing
from ambient.control.derive_unread import Unread
from ambient.control.gateway_evidence import AUTHORITY_SUFFIX, ISTIO, granted
from ambient.kube.backend_tls import BackendTLSPolicy
from ambient.kube.networking import ClientCheck, DestinationRule, Gateway, ObjectRef
from ambient.kube.objects import Condition, Records, Secret
from ambient.kube.secrets import AUTHORITY
from ambient.kube.status_values import AncestorStatus
from ambient.kube.traffic_values import ClientTls, TrafficPolicy
from ambient.model.workload import Service
from ambient.waypoint.evidence import Evidence
from ambient.waypoint.front import Backend, FrontPort, Origination, Protocol, Subset
from ambient.waypoint.origination import complaint

ORIGINATED: Final = "ambient.mesh/TLSOriginated"
_SYSTEM: Final = frozenset(
    ("", "system", "/etc/ssl/certs/ca-certificates.crt", "/etc/ssl/cert.pem", "/etc/pki/tls/certs/ca-bundle.crt")
)
"""How people name the authorities of the system."""
_BEGINS: Final = frozenset({"SIMPLE", "MUTUAL"})

_log = logging.getLogger("ambient.control.origination")

Part = TypeVar("Part", FrontPort, Subset)


@dataclass(frozen=True, slots=True)
class Asker:
    """The proxy that sends, by its Gateway, "" for any of the namespace; `controller`: who answers for that."""

    namespace: str
    name: str = ""
    controller: str = ""


@dataclass(frozen=True, slots=True)
class _Note:
    """`why` "": it is done."""

    rule: str
    host: str
    reason: str
    why: str = ""


class Originations:
    """`update` with every snapshot, then `applied` for each service; then `conditions` and `ancestors` are what is to
    be said. `system`: PEM of the authorities that a system believes; `evidence`: of the same snapshot."""

    def __init__(self, root_namespace: str, system: str, evidence: EvidenceStore) -> None:
        self._root_namespace = root_namespace
        self._system = system
        self._records = Records()
        self._evidence = evidence
        self._policies = BackendTls((), Records())
        self._unread = Unread()
        self._notes: dict[tuple[str, Asker], tuple[_Note, ...]] = {}
        self._verdicts: dict[tuple[str, Asker], tuple[Verdict, ...]] = {}

    def update(self, records: Records, policies: Iterable[BackendTLSPolicy]) -> None:
        self._records = records
        self._policies = BackendTls(policies, records)
        self._unread = Unread(records.refused, self._root_namespace)
        self._notes, self._verdicts = {}, {}

    def applied(
        self, service: Service, ports: tuple[FrontPort, ...], rule: DestinationRule | None, asker: Asker
    ) -> tuple[FrontPort, ...]:
        """The ports of a service with what is to be spoken with their endpoints. What a defect of ours keeps from being
        found out leaves this service without endpoints, and nobody else's."""
        try:
            return self._applied(service, ports, rule, asker)
        except Exception as error:
            _log.exception("%s: what is to be spoken with it cannot be made", service.key)
            why = f"a defect of the control plane: {type(error).__name__}"
            notes = () if rule is None else (_Note(rule.key, service.hostname, "Invalid", why),)
            self._notes[service.key, asker] = notes
            return tuple(replace(_shut(port), subsets=tuple(_shut(one) for one in port.subsets)) for port in ports)

    def _applied(
        self, service: Service, ports: tuple[FrontPort, ...], rule: DestinationRule | None, asker: Asker
    ) -> tuple[FrontPort, ...]:
        closed = self._unread.asks(service, asker.namespace)
        sections = self._policies.of(service)
        if not closed and not sections and not any(_asks(one.traffic) for port in ports for one in _parts(port)):
            return ports
        notes: list[_Note] = []
        made = []
        for port in ports:
            policy = self._policies.in_force(sections, port.number)
            asked: Origination | Missing | None = None
            if policy is not None:
                asked = self._policies.origination(policy, self._evidence, self._authority_of_system)
                asked = self._proven(asked, asker) if isinstance(asked, Origination) else asked
            subsets = tuple(self._part(one, service, rule, asker, asked, notes, closed) for one in port.subsets)
            made.append(replace(self._part(port, service, rule, asker, asked, notes, closed), subsets=subsets))
        verdicts = tuple(self._policies.verdicts(sections, self._evidence, self._authority_of_system))
        self._notes[service.key, asker] = tuple(dict.fromkeys(notes))
        self._verdicts[service.key, asker] = verdicts
        return tuple(made)

    def _part(
        self,
        part: Part,
        service: Service,
        rule: DestinationRule | None,
        asker: Asker,
        asked: Origination | Missing | None,
        notes: list[_Note],
        closed: bool,
    ) -> Part:
        tls = part.traffic.tls
        wild = isinstance(part, FrontPort) and part.wild is not None
        carried = wild and isinstance(part, FrontPort) and part.protocol is Protocol.TCP
        if isinstance(asked, Missing) or (asked is not None and carried):
            return _shut(part)
        if asked is not None:
            return replace(part, tls=asked)
        inside = tuple(one for one in part.backends if one.identity or one.through)
        if closed:
            return _shut(part, inside)
        if tls is None or rule is None or tls.mode == "DISABLE":
            return part
        if tls.mode not in _BEGINS:
            if len(inside) < len(part.backends) or wild:
                why = f"tls.mode: {tls.mode} is spoken inside of the mesh: not with endpoints outside of it"
                notes.append(_Note(rule.key, service.hostname, "NotSupported", why))
            return _shut(part, inside)
        try:
            if carried:
                raise Missing("NotSupported", "tls.mode: what clients have carried through this port is TLS already")
            begun = self._by_rule(tls, rule, service, asker.namespace, as_asked=wild)
        except Missing as error:
            notes.append(_Note(rule.key, service.hostname, error.reason, error.why))
            return _shut(part)
        notes.append(_Note(rule.key, service.hostname, "NotVerified" if begun.authority is None else "Originated"))
        return replace(part, tls=begun)

    # --- what proxies prove themselves with where a BackendTLSPolicy asks for TLS

    def _proven(self, made: Origination, asker: Asker) -> Origination | Missing:
        gateway = self._records.find(Gateway, asker.namespace, asker.name)
        if gateway is None or gateway.own is None:
            return made
        own, wrong = self._own(gateway, gateway.own)
        return replace(made, own=own) if own is not None else wrong or Missing("InvalidClientCertificateRef", "none")

    def _own(self, gateway: Gateway, ref: ObjectRef) -> tuple[Evidence | None, Missing | None]:
        found, wrong = self._evidence.certificate(
            gateway.namespace, ref, lambda ref: granted(self._records, gateway, ref), serving=False
        )
        if wrong is not None and wrong.reason == "InvalidCertificateRef":
            wrong = Missing("InvalidClientCertificateRef", wrong.why)
        return replace(found, name=f"upstream/{found.name}") if found is not None else None, wrong

    def proof(self, gateway: Gateway) -> Iterator[Condition]:
        """What is said of the certificate that a Gateway's proxies have for applications."""
        if gateway.own is None:
            return
        own, wrong = self._own(gateway, gateway.own)
        if wrong is None:
            yield Condition("ResolvedRefs", "True", "ResolvedRefs", "All references resolved")
            return
        then = "" if own is not None else ": where a BackendTLSPolicy asks for TLS nothing is sent"
        yield Condition(
            "ResolvedRefs", "False", wrong.reason, f"spec.tls.backend.clientCertificateRef: {wrong.why}{then}"
        )

    # --- what a DestinationRule asks for

    def _by_rule(
        self, tls: ClientTls, rule: DestinationRule, service: Service, home: str, *, as_asked: bool
    ) -> Origination:
        """Raises Missing."""
        files = {"clientCertificate": tls.client_certificate, "privateKey": tls.private_key, "caCrl": tls.crl}
        for name in (name for name, path in files.items() if path):
            raise Missing("NotSupported", f"tls.{name}: files of the proxy are not read; credentialName names a Secret")
        if tls.credential:
            self._permitted(rule, tls.credential, home)
        own = None
        if tls.mode == "MUTUAL":
            if not tls.credential:
                raise Missing("InvalidCertificateRef", "tls.credentialName: is required with mode MUTUAL")
            ref = ObjectRef("", "Secret", tls.credential)
            found, wrong = self._evidence.certificate(home, ref, _asked_before, serving=False)
            if found is None:
                raise Missing("InvalidCertificateRef", f"tls.credentialName: {wrong.why if wrong else 'none'}")
            own = replace(found, name=f"upstream/{found.name}")
        authority = None if tls.insecure else self._vouching(tls, home)
        wanted = tls.sni or ("" if service.hostname.startswith("*") else service.hostname)
        names = tls.subject_alt_names or service.subject_alt_names or ((wanted,) if wanted else ())
        made = Origination(wanted, tuple(dict.fromkeys(names)), authority, own, as_asked)
        if why := complaint(made):
            raise Missing("Invalid", f"tls: {why}")
        return made

    def _permitted(self, rule: DestinationRule, name: str, home: str) -> None:
        """A proxy's certificates are its namespace's: rules of others use them only where that says so."""
        if rule.namespace in (home, self._root_namespace):
            return
        if granted(self._records, rule, ObjectRef("", Secret.kind, name, home), group=ISTIO):
            return
        why = (
            f"tls.credentialName: no ReferenceGrant in {home}, the proxy's namespace, lets this rule use Secret {name}"
        )
        raise Missing("RefNotPermitted", why)

    def _vouching(self, tls: ClientTls, home: str) -> Evidence:
        """Who vouches for the server: the Secret's own authority, or one beside it. The system's authorities do where
        no Secret is named, or the rule says so: they are the whole web's, and whoever has his own means that."""
        for name in (tls.credential, f"{tls.credential}{AUTHORITY_SUFFIX}") if tls.credential else ():
            record = self._records.find(Secret, home, name)
            if record is not None and record.data.get(AUTHORITY):
                check = ClientCheck((ObjectRef("", "Secret", name),))
                found, wrong = self._evidence.authority(home, check, _asked_before)
                if found is None:
                    why = wrong.why if wrong is not None else ""
                    raise Missing("InvalidCACertificateRef", f"tls.credentialName: {why}")
                return replace(found, name=f"upstream/{found.name}")
        if tls.credential and not tls.ca_certificates:
            why = f"no {AUTHORITY} in Secret {home}/{tls.credential} or {tls.credential}{AUTHORITY_SUFFIX}"
            raise Missing("InvalidCACertificateRef", f"tls.credentialName: {why}")
        if tls.ca_certificates not in _SYSTEM:
            why = "files of the proxy are not read; credentialName names a Secret, system the authorities of the system"
            raise Missing("NotSupported", f"tls.caCertificates: {why}")
        return self._authority_of_system()

    def _authority_of_system(self) -> Evidence:
        """Raises Missing."""
        if not self._system:
            raise Missing("InvalidCACertificateRef", "the control plane knows no authorities of its system")
        return Evidence("upstream/authority/system", self._system)

    # --- what is said

    def conditions(self) -> dict[str, tuple[Condition, ...]]:
        """Of the rules that ask for TLS where a proxy has to do with it, by key."""
        found: dict[str, list[_Note]] = {}
        for _, notes in sorted(self._notes.items(), key=lambda one: (one[0][0], one[0][1].namespace, one[0][1].name)):
            for note in notes:
                found.setdefault(note.rule, []).append(note)
        return {key: (_said(notes),) for key, notes in found.items()}

    def ancestors(self) -> Mapping[str, tuple[AncestorStatus, ...]]:
        """Of each BackendTLSPolicy, by key, what is to be said for each Gateway that sends to what it is for."""
        found: dict[str, dict[Asker, list[Verdict]]] = {}
        for (_, asker), verdicts in self._verdicts.items():
            for one in verdicts if asker.name else ():
                found.setdefault(one.policy, {}).setdefault(asker, []).append(one)
        return {key: tuple(_ancestors(askers)) for key, askers in found.items()}


def _ancestors(askers: Mapping[Asker, list[Verdict]]) -> Iterator[AncestorStatus]:
    for asker, verdicts in sorted(askers.items(), key=lambda one: (one[0].namespace, one[0].name)):
        worst = next((one for one in verdicts if one.conditions[0].status == "False"), verdicts[0])
        ref = {"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": asker.name}
        yield AncestorStatus({**ref, "namespace": asker.namespace}, asker.controller, worst.conditions)


def _asked_before(ref: ObjectRef) -> bool:
    """Whether it may be used was asked before."""
    return True


def _shut(part: Part, inside: tuple[Backend, ...] = ()) -> Part:
    """With no endpoint but these."""
    shut = replace(part, backends=inside)
    return replace(shut, wild=None) if isinstance(shut, FrontPort) else shut


def _parts(port: FrontPort) -> tuple[FrontPort | Subset, ...]:
    return (port, *port.subsets)


def _asks(traffic: TrafficPolicy) -> bool:
    return traffic.tls is not None and traffic.tls.mode != "DISABLE"


def _said(notes: list[_Note]) -> Condition:
    wrong = [one for one in notes if one.why]
    if wrong:
        told = "; ".join(dict.fromkeys(f"{one.host}: {one.why}" for one in wrong))[:900]
        return Condition(ORIGINATED, "False", wrong[0].reason, f"{told}: nothing is sent there")
    hosts = ", ".join(dict.fromkeys(one.host for one in notes))[:900]
    if any(one.reason == "NotVerified" for one in notes):
        return Condition(
            ORIGINATED, "True", "NotVerified", f"{hosts}: whoever answers is believed (insecureSkipVerify)"
        )
    return Condition(ORIGINATED, "True", "Originated", f"begun with {hosts}, whose certificate is verified")
