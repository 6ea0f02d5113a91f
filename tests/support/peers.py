"""Programs of others as ends of a tunnel: Envoy, and whatever else runs in a pod's network namespace."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ambient.lab.names import NETNS_DIR
from tests.support.hostile_peer import dial
from tests.support.lab import LabUnderTest, until
from tests.support.mint import Leaf, Mint

_TYPE = "type.googleapis.com/envoy.extensions"
TUNNEL = 15008


def command_in(lab: LabUnderTest, pod: str, *argv: str) -> list[str]:
    """A command line that runs in a pod's network namespace."""
    return ["nsenter", f"--net={NETNS_DIR / lab.names.pod(*pod.split('/'))}", *argv]


def listens(lab: LabUnderTest, pod: str, host: str, port: int) -> bool:
    try:
        dial(lab, pod, host, port).close()
    except OSError:
        return False
    return True


@contextmanager
def running(lab: LabUnderTest, pod: str, argv: Sequence[str], port: int, log: Path) -> Iterator[None]:
    """A process of the test in a pod's namespace, from when it listens on 127.0.0.1:port."""
    with log.open("wb") as said:
        process = subprocess.Popen(command_in(lab, pod, *argv), stdout=said, stderr=said)
        try:

            def up() -> bool:
                assert process.poll() is None, log.read_text(errors="replace")[-3000:]
                return listens(lab, pod, "127.0.0.1", port)

            until(f"{argv[0]} listens", up)
            yield
        finally:
            process.kill()
            process.wait()


def tls(mint: Mint, leaf: Leaf, names: str, *, server: bool) -> dict[str, Any]:
    """Mutual TLS 1.3; the peer has to have a URI name that begins with `names`."""
    kind = "Downstream" if server else "Upstream"
    context: dict[str, Any] = {
        "@type": f"{_TYPE}.transport_sockets.tls.v3.{kind}TlsContext",
        "common_tls_context": {
            "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
            "alpn_protocols": ["h2"],
            "tls_certificates": [
                {"certificate_chain": {"inline_string": leaf.chain}, "private_key": {"inline_string": leaf.key}}
            ],
            "validation_context": {
                "trusted_ca": {"inline_string": mint.roots},
                "match_typed_subject_alt_names": [{"san_type": "URI", "matcher": {"prefix": names}}],
            },
        },
    }
    if server:
        context["require_client_certificate"] = True
    return {"name": "tls", "typed_config": context}


def cluster(name: str, host: str, port: int, **more: Any) -> dict[str, Any]:
    """One address."""
    endpoint = {"endpoint": {"address": {"socket_address": {"address": host, "port_value": port}}}}
    endpoints = [{"lb_endpoints": [endpoint]}]
    return {
        "name": name,
        "type": "STATIC",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": name, "endpoints": endpoints},
        **more,
    }


def listener(name: str, host: str, port: int, *filters: dict[str, Any], **chain: Any) -> dict[str, Any]:
    """One chain of filters on one address."""
    address = {"socket_address": {"address": host, "port_value": port}}
    return {"name": name, "address": address, "filter_chains": [{"filters": list(filters), **chain}]}


def envoy_client(mint: Mint, leaf: Leaf, server: str, identity: str, ports: dict[int, str]) -> dict[str, Any]:
    """As a waypoint's way out: each local port leads by CONNECT to an authority, over tunnels to server:15008."""
    http2 = {"http2_protocol_options": {"allow_connect": True}}
    options = {"@type": f"{_TYPE}.upstreams.http.v3.HttpProtocolOptions", "explicit_http_config": http2}
    upstream = cluster(
        "tunnel",
        server,
        TUNNEL,
        transport_socket=tls(mint, leaf, identity, server=False),
        typed_extension_protocol_options={"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": options},
    )
    listeners = []
    for port, authority in ports.items():
        proxy = {
            "@type": f"{_TYPE}.filters.network.tcp_proxy.v3.TcpProxy",
            "stat_prefix": "out",
            "cluster": "tunnel",
            "tunneling_config": {"hostname": authority},
        }
        listeners.append(listener(f"out-{port}", "127.0.0.1", port, {"name": "tcp", "typed_config": proxy}))
    return {"static_resources": {"listeners": listeners, "clusters": [upstream]}}


def logged(line: str) -> list[dict[str, Any]]:
    """An access log of such lines on standard output."""
    format_ = {"text_format_source": {"inline_string": line}}
    log = {"@type": f"{_TYPE}.access_loggers.stream.v3.StdoutAccessLog", "log_format": format_}
    return [{"name": "out", "typed_config": log}]


def tunnel_manager(authority: str) -> dict[str, Any]:
    """The connection manager that ends a CONNECT to `authority` and leads it to the cluster "app"."""
    route = {
        "cluster": "app",
        "timeout": "0s",
        "upgrade_configs": [{"upgrade_type": "CONNECT", "connect_config": {}}],
    }
    virtual = {
        "name": "app",
        "domains": [authority],
        "routes": [{"match": {"connect_matcher": {}}, "route": route}],
    }
    return {
        "@type": f"{_TYPE}.filters.network.http_connection_manager.v3.HttpConnectionManager",
        "stat_prefix": "in",
        "codec_type": "HTTP2",
        "stream_idle_timeout": "0s",
        "upgrade_configs": [{"upgrade_type": "CONNECT"}],
        "http2_protocol_options": {"allow_connect": True},
        "route_config": {"virtual_hosts": [virtual]},
        "http_filters": [{"name": "router", "typed_config": {"@type": f"{_TYPE}.filters.http.router.v3.Router"}}],
        "access_log": logged(
            "peer=%DOWNSTREAM_PEER_URI_SAN% %REQ(:AUTHORITY)% %RESPONSE_CODE% "
            "baggage=%REQ(BAGGAGE)% forwarded=%REQ(FORWARDED)% trace=%REQ(TRACEPARENT)%\n"
        ),
    }


def envoy_server(mint: Mint, leaf: Leaf, host: str, port: int) -> dict[str, Any]:
    """As a gateway's or a waypoint's way in: a CONNECT to host:port on 15008 leads to 127.0.0.1:port."""
    manager = tunnel_manager(f"{host}:{port}")
    door = listener(
        "in",
        "0.0.0.0",
        TUNNEL,
        {"name": "hcm", "typed_config": manager},
        transport_socket=tls(mint, leaf, "spiffe://cluster.local/", server=True),
    )
    return {"static_resources": {"listeners": [door], "clusters": [cluster("app", "127.0.0.1", port)]}}


@contextmanager
def envoy(lab: LabUnderTest, pod: str, config: dict[str, Any], port: int, folder: Path) -> Iterator[Path]:
    """Envoy in a pod's namespace, up; gives the file of what it says."""
    file, log = folder / "envoy.json", folder / "envoy.log"
    file.write_text(json.dumps({"node": {"id": "stranger", "cluster": "strangers"}, **config}))
    binary = Path(sys.executable).with_name("envoy")
    argv = [str(binary), "-c", str(file), "--concurrency", "1", "--disable-hot-restart", "--log-level", "warn"]
    with running(lab, pod, argv, port, log):
        yield log
