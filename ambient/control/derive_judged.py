"""What has to be passed somewhere: the policies and rules for tokens whose targets mean that place. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace

from ambient.control.derive_backends import Judged
from ambient.control.derive_closed import DRY_RUN, TRUE
from ambient.control.derive_kept import Kept
from ambient.control.derive_target import has_targets
from ambient.control.derive_waypoint import Waypoint
from ambient.kube.jwt_rules import JwtRule
from ambient.kube.objects import AuthorizationPolicy, RefusedObject, RequestAuthentication
from ambient.kube.policies import TargetRef
from ambient.model.workload import Service
from ambient.waypoint.deploy import CLASS
from ambient.waypoint.front import Policy

Means = Callable[[TargetRef, str], bool]


def judged(
    kept: Kept,
    refused: Collection[RefusedObject],
    keys: Callable[[str], str],
    means: Means,
    namespaces: Collection[str],
) -> Judged:
    """`means(ref, namespace)`: what a policy of that namespace targets is the place; `namespaces`: where a policy that
    names nothing readable closes it; `keys(url)`: those that were fetched."""
    policies = tuple(_policies(kept, refused, means, namespaces))
    return Judged(policies, tuple(dict.fromkeys(_tokens(kept, keys, means))))


def meant(service: Service | None, of_kubernetes: bool, waypoint: Waypoint, root_namespace: str) -> Means:
    """What means a service behind a waypoint, `of_kubernetes` or a ServiceEntry's; None: workloads that are called by
    their own addresses."""

    def means(ref: TargetRef, namespace: str) -> bool:
        if ref.namespace not in ("", namespace):
            return False
        match ref.group, ref.kind:
            case "" | "core", "Service" if service is not None:
                return of_kubernetes and (service.namespace, service.name) == (namespace, ref.name)
            case "networking.istio.io", "ServiceEntry" if service is not None:
                return not of_kubernetes and (service.namespace, service.name) == (namespace, ref.name)
            case "gateway.networking.k8s.io", "Gateway":
                return (waypoint.namespace, waypoint.name) == (namespace, ref.name)
            case "gateway.networking.k8s.io", "GatewayClass":
                return ref.name == CLASS and namespace == root_namespace
        return False

    return means


def rank(service: Service, of_kubernetes: bool, waypoint: Waypoint) -> int:
    """What Kubernetes gave its address to goes before what the waypoint's own namespace says, that before what others
    say."""
    if of_kubernetes:
        return 0
    return 1 if service.namespace == waypoint.namespace else 2 if service.canonical else 3


def _tokens(kept: Kept, keys: Callable[[str], str], means: Means) -> Iterable[JwtRule]:
    for record in kept.of(RequestAuthentication):
        if any(means(ref, record.namespace) for ref in record.target_refs):
            for rule in record.rules:
                yield replace(rule, keys=keys(rule.keys_url)) if rule.keys_url else rule


def _policies(
    kept: Kept, refused: Collection[RefusedObject], means: Means, namespaces: Collection[str]
) -> Iterable[Policy]:
    for record in kept.of(AuthorizationPolicy):
        if any(means(ref, record.namespace) for ref in record.target_refs):
            dry = record.annotations.get(DRY_RUN) in TRUE
            yield Policy(record.namespace, record.name, record.action, record.rules, dry, record.provider)
    for one in refused:
        refs = _readable_refs(one)
        # Where the real one would have applied; where even that cannot be read, in all of its namespace (or mesh).
        if one.namespace in namespaces if refs is None else any(means(ref, one.namespace) for ref in refs):
            # An ALLOW without rules: nothing is let through until it can be read.
            yield Policy(one.namespace, one.name, "ALLOW")


def closes(refused: RefusedObject) -> bool:
    """An unreadable policy with targetRefs, without a good version, that would have decided something."""
    if refused.stands:
        return False
    if refused.kind == RequestAuthentication.kind:
        return has_targets(refused)
    if refused.kind != AuthorizationPolicy.kind:
        return False
    metadata, spec = refused.raw.get("metadata"), refused.raw.get("spec")
    annotations = metadata.get("annotations") if isinstance(metadata, Mapping) else None
    if isinstance(annotations, Mapping) and str(annotations.get(DRY_RUN)) in TRUE:
        return False
    if not isinstance(spec, Mapping) or spec.get("action") == "AUDIT":
        return False
    return has_targets(refused)


def _readable_refs(refused: RefusedObject) -> tuple[TargetRef, ...] | None:
    spec = refused.raw.get("spec")
    spec = spec if isinstance(spec, Mapping) else {}
    single = spec.get("targetRef")
    listed = [single] if single is not None else spec.get("targetRefs")
    if not isinstance(listed, list) or not listed:
        return None
    found = []
    for entry in listed:
        if not isinstance(entry, Mapping) or not isinstance(entry.get("name"), str):
            return None
        found.append(TargetRef(str(entry.get("group") or ""), str(entry.get("kind")), entry["name"]))
    return tuple(found)


def fetched_keys(kept: Kept) -> dict[str, dict[int, JwtRule]]:
    """By the RequestAuthentication's key: the rules, by their number, whose keys are to be fetched."""
    found = {
        one.key: {number: rule for number, rule in enumerate(one.rules) if rule.keys_url}
        for one in kept.of(RequestAuthentication)
    }
    return {key: rules for key, rules in found.items() if rules}
