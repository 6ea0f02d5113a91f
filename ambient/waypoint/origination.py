"""TLS that a proxy begins with an application itself, rather than with its ztunnel: an egress gateway's. Pure.

Certificates are secrets of their own, so a new one is in use for the next connection and ends none.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from typing import Final

from ambient.kube import syntax
from ambient.waypoint import tunnel
from ambient.waypoint.evidence import Evidence, secret
from ambient.waypoint.front import Front, FrontPort, Origination
from ambient.waypoint.typed import ADS, SECRET_TYPE, Message, typed

_MOST_SNI: Final = 255
_SNI: Final = re.compile(r"[A-Za-z0-9._-]+")
_SAID: Final = re.compile(r"[!-~]+")


def begun(origination: Origination) -> Message:
    """The transport socket. The server is believed by who vouches for it and by its name, both or not at all."""
    common: Message = {
        "tls_params": {"tls_minimum_protocol_version": "TLSv1_2", "tls_maximum_protocol_version": "TLSv1_3"},
    }
    if origination.own is not None:
        common["tls_certificate_sds_secret_configs"] = [_discovered(origination.own)]
    if origination.authority is not None:
        names = {"match_typed_subject_alt_names": [_name(one) for one in origination.names]}
        common["combined_validation_context"] = {
            "default_validation_context": names if origination.names else {},
            "validation_context_sds_secret_config": _discovered(origination.authority),
        }
    sni = {"sni": origination.sni} if origination.sni else {}
    return typed(
        "envoy.transport_sockets.tls", "transport_sockets.tls.v3.UpstreamTlsContext", **sni, common_tls_context=common
    )


def complaint(origination: Origination) -> str:
    """What Envoy would refuse of it, or what would leave the server unchecked; "" for nothing."""
    if len(origination.sni) > _MOST_SNI:
        return f"a server name has at most {_MOST_SNI} characters"
    if origination.sni and not _SNI.fullmatch(origination.sni):
        return "a server name has letters, digits, '-', '_' and '.' alone (RFC 6066, section 3)"
    if not all(_SAID.fullmatch(one) for one in origination.names):
        return "a name to look for in the server's certificate is empty, or not ASCII"
    if origination.authority is not None and not origination.names and not origination.as_asked:
        return "no name to look for in the server's certificate"
    return ""


def originating(fronts: Iterable[Front]) -> Iterator[tuple[str, str, Message]]:
    """The secrets of all that these ports prove themselves with, or check by; each once."""
    found = {one.name: one for front in fronts for port in front.ports for one in rests_on(port)}
    yield from ((SECRET_TYPE, name, secret(one)) for name, one in sorted(found.items()))


def asked_for(cluster: Message) -> Iterator[str]:
    """Names of the secrets that Envoy asks for because of this cluster."""
    sockets = [one["transport_socket"] for one in cluster.get("transport_socket_matches", ())]
    sockets += [cluster["transport_socket"]] if "transport_socket" in cluster else []
    for common in (one["typed_config"].get("common_tls_context", {}) for one in sockets):
        yield from (one["name"] for one in common.get("tls_certificate_sds_secret_configs", ()))
        if (checks := common.get("combined_validation_context")) is not None:
            yield checks["validation_context_sds_secret_config"]["name"]


def rests_on(port: FrontPort) -> Iterator[Evidence]:
    """What proves either end to the other, where the proxy begins TLS with endpoints of this port."""
    for tls in (port.tls, *(subset.tls for subset in port.subsets)):
        yield from tls.evidence if tls is not None else ()


def proved_by(fronts: Iterable[Front], names: Collection[str]) -> frozenset[str]:
    """Ports (`tunnel.inner`) that rest on evidence of these names."""
    return frozenset(
        tunnel.inner(front, port.number)
        for front in fronts
        for port in front.ports
        if any(one.name in names for one in rests_on(port))
    )


def _discovered(evidence: Evidence) -> Message:
    return {"name": evidence.name, "sds_config": dict(ADS)}


def _name(name: str) -> Message:
    kind = "URI" if "://" in name else "DNS" if syntax.ip(name) else "IP_ADDRESS"
    return {"san_type": kind, "matcher": {"exact": name}}
