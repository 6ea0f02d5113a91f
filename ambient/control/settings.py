"""Settings of the control plane's process."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ambient.control.derive_limiter import Counting
from ambient.kube import syntax
from ambient.kube.networking import LabelSelector
from ambient.kube.selectors import parse_selectors
from ambient.kube.source import KUBERNETES
from ambient.model.address import Endpoint, port_number
from ambient.settings import (
    boolean,
    choice,
    duration,
    endpoint,
    integer,
    optional_endpoint,
    optional_path,
    path,
    read_settings,
    setting,
    text,
)
from ambient.waypoint.deploy import INGRESS_CLASS, INGRESS_CLASSES

FOREIGN: Final = frozenset(
    {
        *("AMBIENT_BPFFS", "AMBIENT_POD_NETNS", "AMBIENT_POD_VETH", "AMBIENT_KUBELET_CGROUP", "AMBIENT_LOADER"),
        "AMBIENT_NODE_CGROUP",
        *("AMBIENT_STATE_DIR", "AMBIENT_RUN_DIR", "AMBIENT_CUSTODY_UDS", "AMBIENT_LAB"),
    }
)
"""AMBIENT_ variables of other processes that may share the environment."""
SERVICE: Final = "ambient-control"
"""Our Service, by which agents, ztunnels and the API server reach us."""


def _words(given: str) -> frozenset[str]:
    words = frozenset(given.split(","))
    if "" in words:
        raise ValueError("an entry of the list is empty")
    return words


def _optional_words(given: str) -> frozenset[str]:
    return _words(given) if given else frozenset()


def _resources(given: str) -> Mapping[str, Any]:
    """Of a container, as JSON."""
    found = json.loads(given)
    if not isinstance(found, dict) or found.keys() - {"requests", "limits", "claims"}:
        raise ValueError('expected {"requests": {...}, "limits": {...}}')
    return found


def _counting(given: str) -> Counting | None:
    if given == "none":
        return None
    hostname, _, port = given.rpartition(":")
    if (complaint := syntax.dns_subdomain(hostname)) or not port_number(port):
        raise ValueError(complaint or f"{given!r} is not HOSTNAME:PORT")
    return Counting(hostname, port_number(port))


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlSettings:
    """What `python -m ambient.control` is told through its environment; times are seconds."""

    objects: Path = setting("AMBIENT_OBJECTS", path)
    issuer: str = setting("AMBIENT_ISSUER", choice("own", "kubernetes", "none"), "own")
    """Who signs: we, a signer of the cluster (CertificateSigningRequest), or somebody to whom clients go themselves."""
    ca_dir: Path | None = setting("AMBIENT_CA_DIR", optional_path, "none")
    """Where an authority is plugged in, or (lab) our own is kept. None: our own is kept in `ca_secret`."""
    ca_secret: str = setting("AMBIENT_CA_SECRET", text, "ambient-ca")
    root_lifetime_s: float = setting("CITADEL_SELF_SIGNED_CA_CERT_TTL", duration, "3650d")
    root_announce_s: float = setting("AMBIENT_ROOT_ANNOUNCE", duration, "24h")
    """How long a new root is trusted before it signs: longer than clients take to learn of it."""
    root_retire_s: float = setting("AMBIENT_ROOT_RETIRE", duration, "90d")
    """How long an old root is trusted after its last signature; never shorter than `longest_ttl_s`."""
    signer: str = setting("AMBIENT_SIGNER", text, "")
    signer_domain: str = setting("AMBIENT_SIGNER_DOMAIN", text, "")
    signer_approve: bool = setting("AMBIENT_SIGNER_APPROVE", boolean, "true")
    roots: Path | None = setting("AMBIENT_ROOTS", optional_path, "none")
    """PEM of the roots of a signer outside."""
    serving_dir: Path | None = setting("AMBIENT_SERVING_DIR", optional_path, "none")
    """Our server certificate (tls.crt, tls.key) where nobody issues one to us."""
    root_config_map: str = setting("PILOT_CA_CERT_CONFIGMAP", text, "istio-ca-root-cert")
    """Where every namespace finds the roots (a cluster only)."""
    token_key: Path | None = setting("AMBIENT_TOKEN_KEY", optional_path, "none")
    """Public keys of tokens that we believe without asking (lab). None: the API server is asked."""
    token_stale_s: float = setting("AMBIENT_TOKEN_STALE", duration, "1h")
    """How long a token that was accepted goes on while the API server cannot be asked."""
    token_issuer: str = setting("AMBIENT_TOKEN_ISSUER", text, "ambient-lab")
    token_audience: str = setting("TOKEN_AUDIENCE", text, "istio-ca")
    xds_listen: Endpoint = setting("AMBIENT_XDS_LISTEN", endpoint, ":15012")
    http_listen: Endpoint = setting("AMBIENT_HTTP_LISTEN", endpoint, ":15014")
    webhook_listen: Endpoint | None = setting("AMBIENT_WEBHOOK_LISTEN", optional_endpoint, "none")
    """Where the API server asks whether objects may be written."""
    webhook_name: str = setting("AMBIENT_WEBHOOK_CONFIGURATION", text, "ambient-control")
    waypoint_image: str = setting("AMBIENT_WAYPOINT_IMAGE", text, "")
    """Of the pods that are made for waypoints (a cluster only); "": none are made."""
    waypoint_pull_policy: str = setting("AMBIENT_WAYPOINT_PULL_POLICY", text, "IfNotPresent")
    waypoint_pull_secrets: frozenset[str] = setting("AMBIENT_WAYPOINT_PULL_SECRETS", _optional_words, "")
    waypoint_resources: Mapping[str, Any] = setting("AMBIENT_WAYPOINT_RESOURCES", _resources, "{}")
    gateway_image: str = setting("AMBIENT_GATEWAY_IMAGE", text, "")
    """The same of ingress gateways."""
    gateway_resources: Mapping[str, Any] = setting("AMBIENT_GATEWAY_RESOURCES", _resources, "{}")
    gateway_classes: frozenset[str] = setting("AMBIENT_GATEWAY_CLASSES", _words, INGRESS_CLASS)
    """GatewayClasses for ingress that are made on a cluster where they are not there."""
    cluster: str = setting("CLUSTER_ID", text, "Kubernetes")
    network: str = setting("NETWORK", text, "")
    trust_domain: str = setting("TRUST_DOMAIN", text, "cluster.local")
    cluster_domain: str = setting("CLUSTER_DOMAIN", text, "cluster.local")
    trust_domain_aliases: frozenset[str] = setting("TRUST_DOMAIN_ALIASES", _optional_words, "")
    discovery_selectors: tuple[LabelSelector, ...] = setting("DISCOVERY_SELECTORS", parse_selectors, "")
    """Which namespaces count, as `kubectl -l` takes it; several with ";". None: all."""
    dry_run_policies: bool = setting("AMBIENT_ENABLE_DRY_RUN_AUTHORIZATION_POLICY", boolean, "false")
    root_namespace: str = setting("ROOT_NAMESPACE", text, "istio-system")
    default_ttl_s: float = setting("DEFAULT_WORKLOAD_CERT_TTL", duration, "24h")
    longest_ttl_s: float = setting("MAX_WORKLOAD_CERT_TTL", duration, "90d")
    node_accounts: frozenset[str] = setting("CA_TRUSTED_NODE_ACCOUNTS", _words, "ambient-system/ztunnel")
    client_accounts: frozenset[str] = setting(
        "AMBIENT_CLIENT_ACCOUNTS",
        _words,
        "ambient-system/ztunnel,ambient-system/agent,ambient-system/ambient-agent",
    )
    server_names: frozenset[str] = setting(
        "AMBIENT_SERVER_NAMES",
        _words,
        "istiod.istio-system.svc,istiod.istio-system.svc.cluster.local,"
        "ambient-control.ambient-system.svc,ambient-control.ambient-system.svc.cluster.local,localhost",
    )
    keys_refresh_s: float = setting("AMBIENT_JWKS_REFRESH", duration, "20m")
    """How often key sets of RequestAuthentications (jwksUri) are fetched."""
    keys_roots: Path | None = setting("AMBIENT_JWKS_ROOTS", optional_path, "none")
    """PEM file of authorities that their servers may be certified by, beside the system's."""
    egress_roots: Path | None = setting("AMBIENT_EGRESS_ROOTS", optional_path, "none")
    """PEM file of authorities that proxies believe servers outside by where the system's are asked for: instead of
    these."""
    mesh_config: Path | None = setting("AMBIENT_MESH_CONFIG", optional_path, "none")
    """File with Istio's MeshConfig; its extensionProviders are who CUSTOM policies may ask."""
    rate_limits: Counting | None = setting("AMBIENT_RATE_LIMIT_SERVICE", _counting, "none")
    """The service that counts limits for all proxies: HOSTNAME:PORT, as the mesh knows it."""
    stream_age_s: float = setting("AMBIENT_STREAM_AGE", duration, "30m")
    patience_s: float = setting("AMBIENT_CLIENT_PATIENCE", duration, "20s")
    news_patience_s: float = setting("AMBIENT_NEWS_PATIENCE", duration, "1s")
    join_grace_s: float = setting("AMBIENT_JOIN_GRACE", duration, "60s")
    most_streams: int = setting("AMBIENT_MOST_STREAMS", integer(1, 100_000), "4000")
    namespace: str = setting("POD_NAMESPACE", text, "ambient-system")
    replica: str = setting("POD_NAME", text, "")
    lease: str = setting("AMBIENT_LEASE", text, "ambient-control")
    create_root: bool = setting("AMBIENT_CREATE_ROOT", boolean, "true")
    log_level: str = setting("LOG_LEVEL", choice("debug", "info", "warning", "error"), "info")
    log_format: str = setting("LOG_FORMAT", choice("plain", "json"), "plain")

    @property
    def ingress_classes(self) -> frozenset[str]:
        """GatewayClasses that are ours whoever has made them: on a cluster their controller says whose they are."""
        return frozenset() if self.objects == KUBERNETES else INGRESS_CLASSES

    @property
    def own_names(self) -> frozenset[str]:
        """What our server certificate names: what is set, and our Service wherever we are installed."""
        service = f"{SERVICE}.{self.namespace}.svc"
        return self.server_names | {service, f"{service}.{self.cluster_domain}"}


def read_control_settings(environment: Mapping[str, str]) -> ControlSettings:
    """Raises InvalidInput naming the variable; an unknown AMBIENT_ variable is refused too."""
    return read_settings(ControlSettings, environment, closed=("AMBIENT_",), foreign=FOREIGN)
