"""Gathers the config dump: what the director knows and what the workers report, in Istio's shape."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from ambient.model.address import DNS_PORT, HBONE_PORT, OUTBOUND_PORT, PLAINTEXT_PORT, PROXY_MARK
from ambient.model.policy import Authorization
from ambient.model.workload import Service, Workload
from ambient.xds.key_request import describe
from ztunnel import VERSION
from ztunnel.admin import dump
from ztunnel.config import Config
from ztunnel.director.certificates import Shown
from ztunnel.director.director import Director


async def config_dump(director: Director) -> bytes:
    """The text of /config_dump. The large part is rendered beside the event loop; the values are immutable."""
    connections = await director.reports.connections()
    mesh = director.discovery.mesh
    states = {
        info.uid: dump.pod_state(
            info.name,
            info.namespace,
            info.service_account,
            up=director.pods.up(info.uid),
            connections=connections.get(info.uid, ()),
        )
        for info in director.pods.infos()
    }
    return await asyncio.to_thread(
        _render,
        list(mesh.workloads()),
        list(mesh.services()),
        list(mesh.policies()),
        director.certificates.show(),
        states,
        director.config,
        [worker.form for worker in director.crew],
    )


async def connections(director: Director, now_unix: float) -> bytes:
    """The text of /connections: one object per open connection, the oldest first."""
    reported = await director.reports.connections()
    rows = [
        {
            "namespace": info.namespace,
            "pod": info.name,
            "direction": one.direction,
            "src": one.src,
            "originalDst": one.original_dst or None,
            "actualDst": one.actual_dst,
            "protocol": one.protocol,
            "peer": one.peer or None,
            "openedAt": datetime.fromtimestamp(one.opened_unix, UTC).isoformat(timespec="milliseconds"),
            "ageSeconds": round(max(0.0, now_unix - one.opened_unix), 3),
        }
        for info in director.pods.infos()
        for one in reported.get(info.uid, ())
    ]
    return json.dumps(sorted(rows, key=lambda row: str(row["openedAt"])), indent=2).encode() + b"\n"


def _render(
    workloads: Sequence[Workload],
    services: Sequence[Service],
    policies: Sequence[Authorization],
    certificates: Sequence[Shown],
    states: dict[str, Any],
    config: Config,
    forms: Sequence[str],
) -> bytes:
    ordered = sorted(workloads, key=lambda one: one.uid)
    return dump.render(
        {
            "workloads": [dump.workload(one) for one in ordered],
            "services": dump.services(sorted(services, key=lambda one: one.key), ordered),
            "policies": [dump.policy(one) for one in sorted(policies, key=lambda one: one.key)],
            "certificates": [
                {
                    "identity": one.identity,
                    "state": one.state,
                    "certChain": describe(one.chain_pem),
                    "rootCerts": describe(one.roots_pem),
                }
                for one in certificates
            ],
            "workloadState": states,
            "stagedServices": {},
            "staticConfig": _static(config, ordered, services, policies),
            "version": _version(forms),
            "config": _config(config),
        }
    )


def _static(
    config: Config, workloads: Sequence[Workload], services: Sequence[Service], policies: Sequence[Authorization]
) -> dict[str, Any]:
    """The local file, where it is all there is to know, in the form in which such a file is read."""
    local = bool(config.local_xds or config.local_xds_path)
    return {
        "workloads": [dump.static_workload(one) for one in workloads] if local else [],
        "services": dump.services(services, ()) if local else [],
        "policies": [dump.policy(one) for one in policies] if local else [],
    }


def _version(forms: Sequence[str]) -> dict[str, str]:
    """`workers`: what the workers run, see `ztunnel.compiled.Form`; the other keys are Istio's."""
    return {
        "workers": ", ".join(dict.fromkeys(forms)),
        "version": VERSION,
        "gitRevision": "unknown",
        "rustVersion": "none",
        "pythonVersion": sys.version.split()[0],
        "buildProfile": "release",
        "buildStatus": "Clean",
        "istioVersion": "unknown",
        "cryptoProvider": "openssl",
    }


def _config(config: Config) -> dict[str, Any]:
    wildcard = "[::]" if config.ipv6 else "0.0.0.0"
    return {
        "adminAddr": {"Localhost": [config.ipv6, config.admin_port]},
        "statsAddr": {"SocketAddr": f"{wildcard}:{config.stats_port}"},
        "readinessAddr": {"SocketAddr": f"{wildcard}:{config.ready_port}"},
        "inboundAddr": f"{wildcard}:{HBONE_PORT}",
        "inboundPlaintextAddr": f"{wildcard}:{PLAINTEXT_PORT}",
        "outboundAddr": f"{wildcard}:{OUTBOUND_PORT}",
        "illegalPorts": [HBONE_PORT, PLAINTEXT_PORT, OUTBOUND_PORT],
        "packetMark": PROXY_MARK,
        "inpodUds": config.inpod_uds,
        "inpodPortReuse": True,
        "network": config.network,
        "localNode": config.node,
        "proxyMode": "Shared",
        "proxy": True,
        "clusterId": config.cluster_id,
        "clusterDomain": config.cluster_domain,
        "trustDomain": config.trust_domain,
        "caAddress": config.ca_address,
        "caRootCert": {"File": config.ca_root_ca},
        "altCaHostname": config.alt_ca_hostname or None,
        "xdsAddress": config.xds_address,
        "xdsRootCert": {"File": config.xds_root_ca},
        "altXdsHostname": config.alt_xds_hostname or None,
        "secretTtl": {"secs": config.secret_ttl_s, "nanos": 0},
        "selfTerminationDeadline": {"secs": int(config.drain_s), "nanos": 0},
        "dnsProxy": config.dns,
        "ipv6Enabled": config.ipv6,
        "numWorkerThreads": config.workers,
        "dnsProxyAddr": {"Localhost": [config.ipv6, DNS_PORT]},
        "preferedServiceNamespace": config.preferred_namespace or None,
        "requireOriginalSource": config.orig_src,
        "xdsOnDemand": config.on_demand,
        "metricsSeries": config.metrics_series,
        "registryOnly": config.registry_only,
        "onlyWaypoints": config.only_waypoints,
    }
