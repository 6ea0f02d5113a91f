"""ztunnel's settings, read once from the environment (Istio's names where they exist) into one frozen value.

Standard library only; the supervisor and the director read it, workers get what they need as `Settings`.
A value that cannot be understood stops the start with its name, never with a guess.
"""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from ambient.errors import InvalidInput
from ambient.model.address import ADMIN_PORT, READY_PORT, STATS_PORT, parse_ip
from ambient.settings import boolean, choice, duration, integer
from ztunnel.budgets import Budgets, read_budgets
from ztunnel.telemetry.log_filter import parse_filter
from ztunnel.tuning import Tuning, read_tuning

_T = TypeVar("_T")
_port = integer(1, 65535)


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """Times in seconds. `auth_token`, `*_root_ca` are file paths (or the literal value, as with Istio)."""

    node: str
    cluster_id: str = "Kubernetes"
    trust_domain: str = "cluster.local"
    network: str = ""
    cluster_domain: str = "cluster.local"
    xds_address: str
    ca_address: str
    xds_root_ca: str = "./var/run/secrets/istio/root-cert.pem"
    ca_root_ca: str = "./var/run/secrets/istio/root-cert.pem"
    alt_xds_hostname: str = ""
    alt_ca_hostname: str = ""
    auth_token: str = "./var/run/secrets/tokens/istio-token"
    inpod_uds: str = "/var/run/ztunnel/ztunnel.sock"
    custody_uds: str = ""
    run_dir: str = "/var/run/ambient-ztunnel"
    director_socket: str = "/var/run/ambient-ztunnel/director.sock"
    """Where workers find the director."""
    state_dir: str = ""
    workers: int = 1
    ipv6: bool = True
    dns: bool = True
    secret_ttl_s: int = 86400
    drain_s: float = 5.0
    handover_s: float = 0.0
    """How long to go on serving when told to end, for a successor that somebody starts only then."""
    log_format: str = "plain"
    log_level: str = "info"
    resolvers: tuple[str, ...] = ()
    registry_only: bool = False
    only_waypoints: bool = True
    """What has a waypoint takes connections from nobody else (Istio's ztunnel leaves that to policies)."""
    preferred_namespace: str = ""
    orig_src: bool | None = None
    """Speak to applications as the client: None = where it can be done, True = or refuse, False = never."""
    metrics_series: int = 2_000
    policy_info_log: bool = False
    admin_port: int = ADMIN_PORT
    stats_port: int = STATS_PORT
    ready_port: int = READY_PORT
    pod_name: str = ""
    pod_namespace: str = "ambient-system"
    pod_namespace_given: bool = False
    service_account: str = ""
    instance_ip: str = "1.1.1.1"
    metadata: tuple[tuple[str, Any], ...] = ()
    tuning: Tuning = field(default_factory=Tuning)
    budgets: Budgets = field(default_factory=Budgets)
    xds_headers: tuple[tuple[str, str], ...] = ()
    ca_headers: tuple[tuple[str, str], ...] = ()
    on_demand: bool = False
    lax: bool = False
    crl_path: str = ""
    local_xds: str = ""
    local_xds_path: str = ""

    @property
    def handover_socket(self) -> str:
        """Where the next ztunnel of this node finds us."""
        return os.path.join(self.run_dir, "handover.sock")


class _Reader:
    """Typed access to the environment; every refusal names the variable."""

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env

    def text(self, name: str, default: str) -> str:
        return self._env.get(name, "") or default

    def parsed(self, name: str, default: _T, parse: Callable[[str], _T]) -> _T:
        raw = self._env.get(name, "")
        if not raw:
            return default
        try:
            return parse(raw)
        except (ValueError, InvalidInput) as error:
            raise InvalidInput("unusable setting", name, f"{raw!r}: {error}") from None

    def flag(self, name: str, default: bool) -> bool:
        return self.parsed(name, default, boolean)


def _threads(raw: str) -> int:
    """A number, a percentage of the cores, or 0 for all cores."""
    cores = available_cores()
    if raw.endswith("%"):
        return max(1, round(cores * float(raw[:-1]) / 100))
    count = int(raw)
    if not 0 <= count <= 256:
        raise ValueError("expected 0..256 or a percentage")
    return count or cores


def _address(raw: str) -> str:
    """`scheme://host:port` of a server; a missing scheme means https, as with Istio."""
    url = raw if "://" in raw else f"https://{raw}"
    scheme, _, rest = url.partition("://")
    host, _, port = rest.rpartition(":")
    if scheme not in ("http", "https") or not host:
        raise ValueError("expected https://host:port")
    _port(port)
    return url


def _log_filter(raw: str) -> str:
    return str(parse_filter(raw))


def _addresses(raw: str) -> tuple[str, ...]:
    return tuple(str(parse_ip(part.strip())) for part in raw.split(",") if part.strip())


def available_cores() -> int:
    """Cores this process may run on."""
    return len(os.sched_getaffinity(0))


def drain_deadline(env: Mapping[str, str]) -> float:
    """Seconds connections get at shutdown: Istio's rule from the pod's grace period, else 5 (interop 1.10)."""
    reader = _Reader(env)
    explicit = reader.parsed("CONNECTION_TERMINATION_DEADLINE", 0.0, duration)
    if explicit:
        return explicit
    grace = reader.parsed("TERMINATION_GRACE_PERIOD_SECONDS", 0.0, duration)
    if not grace:
        return 5.0
    return max(1.0, grace - 5 if grace > 10 else grace - 1)


def system_resolvers(text: str) -> tuple[str, ...]:
    """Name servers of a resolv.conf's text; lines that make no sense are skipped, as every resolver does."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == "nameserver":
            try:
                found.append(str(parse_ip(words[1].partition("%")[0])))
            except InvalidInput:
                continue
    return tuple(found)


def _resolv_conf() -> tuple[str, ...]:
    try:
        with open("/etc/resolv.conf", encoding="utf-8", errors="replace") as file:
            return system_resolvers(file.read())
    except OSError:
        return ()


def _metadata(env: Mapping[str, str]) -> tuple[tuple[str, Any], ...]:
    """What the control plane is told about us: ISTIO_META_X as text, ISTIO_METAJSON_X as the JSON value it is."""
    found: dict[str, Any] = {}
    for key, value in sorted(env.items()):
        if key.startswith("ISTIO_META_"):
            found[key.removeprefix("ISTIO_META_")] = value
        elif key.startswith("ISTIO_METAJSON_"):
            try:
                found[key.removeprefix("ISTIO_METAJSON_")] = json.loads(value)
            except ValueError as error:
                raise InvalidInput("unusable setting", key, f"not JSON: {error}") from None
    return tuple(found.items())


def _headers(env: Mapping[str, str], prefix: str) -> tuple[tuple[str, str], ...]:
    """Additional metadata of gRPC calls by name, which gRPC wants in lower case."""
    found = []
    for key, value in sorted(env.items()):
        if key.startswith(prefix):
            name = key.removeprefix(prefix).lower()
            if not re.fullmatch(r"[0-9a-z_.-]+", name) or name.endswith("-bin") or not value.isprintable():
                raise InvalidInput("unusable setting", key, "not a header that can be sent")
            found.append((name, value))
    return tuple(found)


def _one_source(env: Mapping[str, str]) -> None:
    """What is known comes from one place only."""
    given = [name for name in ("LOCAL_XDS", "LOCAL_XDS_PATH", "XDS_ADDRESS") if env.get(name)]
    if len(given) > 1:
        raise InvalidInput("unusable setting", given[0], f"excludes {given[1]}")


def _on_demand(reader: _Reader) -> Callable[[str], bool]:
    def parse(raw: str) -> bool:
        wanted = boolean(raw)
        if wanted and reader.flag("DNS_CAPTURE", True):
            raise ValueError("names cannot be looked up on demand: DNS_CAPTURE must be false then")
        return wanted

    return parse


def read_config(env: Mapping[str, str]) -> Config:
    """The settings in `env`; raises InvalidInput naming the variable and what it should look like."""
    reader = _Reader(env)
    _one_source(env)
    in_cluster = "https://istiod.istio-system.svc:15012" if env.get("KUBERNETES_SERVICE_HOST") else ""
    xds = reader.parsed("XDS_ADDRESS", in_cluster or "https://localhost:15012", _address)
    run_dir = reader.text("AMBIENT_RUN_DIR", "/var/run/ambient-ztunnel")
    workers = reader.parsed("ZTUNNEL_WORKER_THREADS", available_cores(), _threads)
    xds_root = reader.text("XDS_ROOT_CA", "./var/run/secrets/istio/root-cert.pem")
    return Config(
        node=reader.text("NODE_NAME", socket.gethostname()),
        cluster_id=reader.text("ISTIO_META_CLUSTER_ID", reader.text("CLUSTER_ID", "Kubernetes")),
        trust_domain=reader.text("TRUST_DOMAIN", "cluster.local"),
        network=reader.text("NETWORK", ""),
        cluster_domain=reader.text("CLUSTER_DOMAIN", "cluster.local"),
        xds_address=xds,
        ca_address=reader.parsed("CA_ADDRESS", xds, _address),
        xds_root_ca=xds_root,
        ca_root_ca=reader.text("CA_ROOT_CA", xds_root),
        alt_xds_hostname=reader.text("ALT_XDS_HOSTNAME", ""),
        alt_ca_hostname=reader.text("ALT_CA_HOSTNAME", reader.text("ALT_XDS_HOSTNAME", "")),
        auth_token=reader.text("AUTH_TOKEN", "./var/run/secrets/tokens/istio-token"),
        inpod_uds=reader.text("INPOD_UDS", "/var/run/ztunnel/ztunnel.sock"),
        custody_uds=reader.text("AMBIENT_CUSTODY_UDS", ""),
        run_dir=run_dir,
        director_socket=reader.text("AMBIENT_DIRECTOR_SOCKET", os.path.join(run_dir, "director.sock")),
        state_dir=reader.text("AMBIENT_STATE_DIR", ""),
        workers=workers,
        ipv6=reader.flag("IPV6_ENABLED", True),
        dns=reader.flag("DNS_CAPTURE", True),
        secret_ttl_s=int(reader.parsed("SECRET_TTL", 86400.0, duration)),
        drain_s=drain_deadline(env),
        handover_s=reader.parsed("AMBIENT_HANDOVER_WAIT", 0.0, duration),
        log_format=reader.parsed("LOG_FORMAT", "plain", choice("plain", "json")),
        log_level=reader.parsed("LOG_LEVEL", reader.parsed("RUST_LOG", "info", _log_filter), _log_filter),
        resolvers=reader.parsed("AMBIENT_RESOLVERS", (), _addresses) or _resolv_conf(),
        registry_only=reader.parsed("AMBIENT_OUTBOUND", "ALLOW_ANY", choice("ALLOW_ANY", "REGISTRY_ONLY"))
        == "REGISTRY_ONLY",
        only_waypoints=reader.parsed("AMBIENT_WAYPOINTS", "enforced", choice("enforced", "istio")) == "enforced",
        preferred_namespace=reader.text("PREFERED_SERVICE_NAMESPACE", ""),
        orig_src=reader.flag("ENABLE_ORIG_SRC", False) if env.get("ENABLE_ORIG_SRC") else None,
        policy_info_log=reader.flag("AUTHZ_POLICY_INFO_LOGGING", False),
        metrics_series=reader.parsed("AMBIENT_METRICS_SERIES", 2_000, integer(10, 100_000)),
        admin_port=reader.parsed("AMBIENT_ADMIN_PORT", ADMIN_PORT, _port),
        stats_port=reader.parsed("AMBIENT_STATS_PORT", STATS_PORT, _port),
        ready_port=reader.parsed("AMBIENT_READY_PORT", READY_PORT, _port),
        pod_name=reader.text("POD_NAME", ""),
        pod_namespace=reader.text("POD_NAMESPACE", "ambient-system"),
        pod_namespace_given=bool(env.get("POD_NAMESPACE")),
        service_account=reader.text("SERVICE_ACCOUNT", ""),
        instance_ip=reader.text("INSTANCE_IP", "1.1.1.1"),
        metadata=_metadata(env),
        tuning=read_tuning(reader),
        budgets=read_budgets(reader, workers),
        xds_headers=_headers(env, "XDS_HEADER_"),
        ca_headers=_headers(env, "CA_HEADER_"),
        crl_path=reader.text("CRL_PATH", ""),
        local_xds=reader.text("LOCAL_XDS", ""),
        local_xds_path=reader.text("LOCAL_XDS_PATH", ""),
        lax=reader.parsed("AMBIENT_COMPAT", "strict", choice("strict", "istio")) == "istio",
        on_demand=reader.parsed("XDS_ON_DEMAND", False, _on_demand(reader)),
    )
