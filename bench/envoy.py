"""Envoy as the peer to compare with: one per node, carrying the same mTLS CONNECT tunnels between the same pods.

It listens inside the pods' network namespaces (15001 and up for what the client dials, 15008 for tunnels), makes its
own connections there as well, uses certificates of the lab's CA, TLS 1.3 with client certificates both ways, writes
an access log as ztunnel does, and has as many workers as our ztunnel. What it is spared: the capture (the client dials
its listener) and putting on the client's address.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from ambient.ca.csr import SigningRequest
from ambient.ca.issue import issue
from ambient.ca.roots import load_authority
from ambient.errors import Unavailable
from ambient.lab.run import inside
from ambient.model.identity import parse_identity
from bench.arms import Arm
from bench.world import BULK, HTTP, NODES, PEER, World

_TYPES: Final = "type.googleapis.com/envoy.extensions"
_TUNNEL: Final = 15008
_FIRST: Final = 15001
_READY_S: Final = 20.0
_DIALLED: Final = (("far", HTTP), ("far", BULK), ("near", HTTP), ("near", BULK))
"""One listener each in the client's namespace, from port 15001 on."""


def _tls(identity: dict[str, str], trust: str, *, server: bool) -> dict[str, Any]:
    context: dict[str, Any] = {
        "@type": f"{_TYPES}.transport_sockets.tls.v3.{'Downstream' if server else 'Upstream'}TlsContext",
        "common_tls_context": {
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
            "alpn_protocols": ["h2"],
            "tls_certificates": [
                {"certificate_chain": {"filename": identity["chain"]}, "private_key": {"filename": identity["key"]}}
            ],
            "validation_context": {
                "trusted_ca": {"filename": identity["roots"]},
                "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"prefix": trust}}],
            },
        },
    }
    if server:
        context["require_client_certificate"] = True
    return {"name": "tls", "typed_config": context}


def _address(ip: str, port: int, netns: Path) -> dict[str, Any]:
    return {"socket_address": {"address": ip, "port_value": port, "network_namespace_filepath": str(netns)}}


def _cluster(name: str, ip: str, port: int, netns: Path) -> dict[str, Any]:
    endpoint = {"endpoint": {"address": {"socket_address": {"address": ip, "port_value": port}}}}
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "circuit_breakers": {"thresholds": [{"max_connections": 65536, "max_pending_requests": 65536}]},
        "upstream_bind_config": {"source_address": _address("0.0.0.0", 0, netns)["socket_address"]},
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }


def _log(path: Path) -> list[dict[str, Any]]:
    fields = "%START_TIME% %DOWNSTREAM_REMOTE_ADDRESS% %UPSTREAM_HOST% %DOWNSTREAM_PEER_URI_SAN% %BYTES_SENT%"
    text = f"{fields} %BYTES_RECEIVED% %DURATION% %RESPONSE_FLAGS%\n"
    form = {"text_format_source": {"inline_string": text}}
    kind = f"{_TYPES}.access_loggers.file.v3.FileAccessLog"
    return [{"name": "file", "typed_config": {"@type": kind, "path": str(path), "log_format": form}}]


def _listener(name: str, ip: str, port: int, netns: Path, chain: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "address": _address(ip, port, netns),
        "connection_balance_config": {"exact_balance": {}},
        "filter_chains": [chain],
    }


def _outbound(name: str, port: int, authority: str, netns: Path, log: Path) -> dict[str, Any]:
    proxy = {
        "@type": f"{_TYPES}.filters.network.tcp_proxy.v3.TcpProxy",
        "stat_prefix": name,
        "cluster": name,
        "tunneling_config": {"hostname": authority},
        "access_log": _log(log),
    }
    chain = {"filters": [{"name": "tcp", "typed_config": proxy}]}
    return _listener(f"out-{name}", "127.0.0.1", port, netns, chain)


def _tunnel_cluster(name: str, ip: str, netns: Path, tls: dict[str, Any]) -> dict[str, Any]:
    options = {
        "@type": f"{_TYPES}.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {"allow_connect": True, "max_concurrent_streams": 100}},
    }
    return {
        **_cluster(name, ip, _TUNNEL, netns),
        "transport_socket": tls,
        "typed_extension_protocol_options": {f"{_TYPES.split('/')[1]}.upstreams.http.v3.HttpProtocolOptions": options},
    }


def _inbound(name: str, ip: str, netns: Path, tls: dict[str, Any], log: Path) -> dict[str, Any]:
    def host(port: int) -> dict[str, Any]:
        route = {
            "cluster": f"app-{name}-{port}",
            "timeout": "0s",
            "upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {}}],
        }
        routes = [{"match": {"connect_matcher": {}}, "route": route}]
        return {"name": f"app-{port}", "domains": [f"{ip}:{port}"], "routes": routes}

    manager = {
        "@type": f"{_TYPES}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": name,
        "codec_type": "HTTP2",
        "stream_idle_timeout": "0s",
        "upgrade_configs": [{"upgrade_type": "CONNECT"}],
        "http2_protocol_options": {"allow_connect": True, "max_concurrent_streams": 200},
        "route_config": {"virtual_hosts": [host(HTTP), host(BULK)]},
        "http_filters": [
            {"name": "router", "typed_config": {"@type": f"{_TYPES}.filters.http.router.v3.Router"}},
        ],
        "access_log": _log(log),
    }
    chain = {"transport_socket": tls, "filters": [{"name": "hcm", "typed_config": manager}]}
    return _listener(f"in-{name}", "0.0.0.0", _TUNNEL, netns, chain)


def config(world: World, node: str, folder: Path) -> dict[str, Any]:
    """The static configuration of one node's Envoy; certificates and log lie in `folder`."""
    listeners: list[dict[str, Any]] = []
    clusters: list[dict[str, Any]] = []
    trust, log = "spiffe://cluster.local/", folder / f"{node}.log"
    if node == NODES[0]:
        netns, identity = world.netns(f"{PEER}/client"), certificate(world, "client", folder)
        for at, (server, port) in enumerate(_DIALLED):
            ip, name = world.address(f"{PEER}/{server}"), f"{server}-{port}"
            expected = f"spiffe://cluster.local/ns/{PEER}/sa/{server}"
            listeners.append(_outbound(name, _FIRST + at, f"{ip}:{port}", netns, log))
            clusters.append(_tunnel_cluster(name, ip, netns, _tls(identity, expected, server=False)))
    server = "near" if node == NODES[0] else "far"
    netns, ip = world.netns(f"{PEER}/{server}"), world.address(f"{PEER}/{server}")
    tls = _tls(certificate(world, server, folder), trust, server=True)
    listeners.append(_inbound(server, ip, netns, tls, log))
    clusters += [_cluster(f"app-{server}-{port}", ip, port, netns) for port in (HTTP, BULK)]
    return {
        "node": {"id": node, "cluster": "bench"},
        "static_resources": {"listeners": listeners, "clusters": clusters},
    }


def certificate(world: World, account: str, folder: Path) -> dict[str, str]:
    """A leaf of the lab's CA for peer/ACCOUNT as files: paths of key, chain and roots."""
    names = ("root-cert.pem", "root-key.pem")
    now = datetime.now(UTC)
    authority = load_authority({name: (world.names.credentials / name).read_bytes() for name in names}, now)
    key = ec.generate_private_key(ec.SECP256R1())
    identity = parse_identity(f"spiffe://cluster.local/ns/{PEER}/sa/{account}")
    issued = issue(authority, SigningRequest(identity, key.public_key()), now, None)
    form = serialization.PrivateFormat.PKCS8
    secret = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    texts = {"key": secret.decode(), "chain": "".join(issued.chain[:-1]), "roots": issued.chain[-1]}
    paths = {}
    for what, text in texts.items():
        path = folder / f"{account}.{what}.pem"
        path.write_text(text)
        paths[what] = str(path)
    return paths


@contextmanager
def running(world: World, workers: int, folder: Path) -> Iterator[Arm]:
    """An Envoy on each node, ready; ended afterwards. Raises Unavailable with what it said when it does not start."""
    binary = Path(sys.executable).with_name("envoy")
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for number, node in enumerate(NODES):
            file = folder / f"{node}.json"
            file.write_text(json.dumps(config(world, node, folder)))
            argv = [*inside(world.node_netns(node)), str(binary), "-c", str(file), "--concurrency", str(workers)]
            argv += ["--base-id", str(_base_id(world, number)), "--log-level", "warn"]
            with open(folder / f"{node}.stderr", "wb") as errors:
                processes.append(subprocess.Popen(argv, stdout=errors, stderr=errors))
        pids = [process.pid for process in processes]
        ports = {server_port: _FIRST + at for at, server_port in enumerate(_DIALLED)}
        arm = Arm("envoy", f"{PEER}/client", lambda server, port: ("127.0.0.1", ports[server, port]), lambda: pids)
        _wait(world, arm, processes, folder)
        yield arm
    finally:
        for process in processes:
            process.kill()
            process.wait()


def _base_id(world: World, number: int) -> int:
    return 1000 + world.lab.settings.index * 10 + number


def _wait(world: World, arm: Arm, processes: list[subprocess.Popen[bytes]], folder: Path) -> None:
    deadline = monotonic() + _READY_S
    for server in ("far", "near"):
        while True:
            answered = world.load(arm.client, "crr", *arm.reach(server, HTTP), 1, 0.05)
            if answered["count"] and not answered["errors"]:
                break
            if monotonic() > deadline or any(process.poll() is not None for process in processes):
                said = "".join((folder / f"{node}.stderr").read_text()[-1500:] for node in NODES)
                raise Unavailable("envoy", f"does not serve {server}", said)
            sleep(0.2)
