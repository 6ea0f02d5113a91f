"""Both ends' TLS: the waypoint's own certificate from its agent, TLS 1.3, HTTP/2, and who may be at the far end."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from ambient.waypoint.door import Clients
from ambient.waypoint.typed import ADS, Message, typed

AGENT_CLUSTER: Final = "agent"
"""The static cluster of the bootstrap: the agent beside Envoy, over a Unix socket."""
OWN_SECRET: Final = "default"
ROOT_SECRET: Final = "ROOTCA"
NOBODY: Final = "spiffe:///nobody"
"""What no certificate of the mesh names."""


def downstream(prefixes: Iterable[str]) -> Message:
    """For who connects to us: needs a certificate with a SPIFFE id that begins with one of these."""
    return typed(
        "envoy.transport_sockets.tls",
        "transport_sockets.tls.v3.DownstreamTlsContext",
        require_client_certificate=True,
        common_tls_context=_common(prefixes),
    )


def upstream(prefixes: Iterable[str]) -> Message:
    """For whom we connect to."""
    return typed(
        "envoy.transport_sockets.tls",
        "transport_sockets.tls.v3.UpstreamTlsContext",
        common_tls_context=_common(prefixes),
    )


def upstream_exact(identities: Iterable[str]) -> Message:
    """For a peer that has to prove one of these SPIFFE ids; without any nobody can."""
    names = [{"san_type": "URI", "matcher": {"exact": one}} for one in (*identities, NOBODY)]
    return typed(
        "envoy.transport_sockets.tls",
        "transport_sockets.tls.v3.UpstreamTlsContext",
        common_tls_context=_mesh(names),
    )


def served(certificates: Iterable[str], clients: Clients | None) -> Message:
    """For clients from outside: our certificates by name, and who of theirs is let in."""
    common: Message = {
        "alpn_protocols": ["h2", "http/1.1"],
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3"},
        "tls_certificate_sds_secret_configs": [_discovered(name) for name in certificates],
    }
    fields: Message = {"common_tls_context": common}
    if clients is not None and clients.insecure:
        common["combined_validation_context"] = {
            "default_validation_context": {"trust_chain_verification": "ACCEPT_UNTRUSTED"},
            "validation_context_sds_secret_config": _discovered(clients.authority),
        }
    elif clients is not None:
        common["validation_context_sds_secret_config"] = _discovered(clients.authority)
        fields["require_client_certificate"] = True
    return typed("envoy.transport_sockets.tls", "transport_sockets.tls.v3.DownstreamTlsContext", **fields)


def _discovered(name: str) -> Message:
    """A secret that comes with everything else from the control plane."""
    return {"name": name, "sds_config": dict(ADS)}


def _common(prefixes: Iterable[str]) -> Message:
    return _mesh([{"san_type": "URI", "matcher": {"prefix": prefix}} for prefix in prefixes])


def _mesh(names: list[Message]) -> Message:
    return {
        "alpn_protocols": ["h2"],
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
        "tls_certificate_sds_secret_configs": [_secret(OWN_SECRET)],
        "combined_validation_context": {
            "default_validation_context": {"match_typed_subject_alt_names": names},
            "validation_context_sds_secret_config": _secret(ROOT_SECRET),
        },
    }


def _secret(name: str) -> Message:
    source = {
        "api_type": "DELTA_GRPC",
        "transport_api_version": "V3",
        "set_node_on_first_message_only": True,
        "grpc_services": [{"envoy_grpc": {"cluster_name": AGENT_CLUSTER}}],
    }
    # Without a limit: a port that is open while there is no certificate would refuse everybody.
    config = {"api_config_source": source, "resource_api_version": "V3", "initial_fetch_timeout": "0s"}
    return {"name": name, "sds_config": config}
