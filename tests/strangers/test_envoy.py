"""Envoy at the other end of a tunnel, in either role, as Istio's waypoints and gateways are."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from tests.strangers.conftest import FOREIGN
from tests.support.arena import Arena
from tests.support.hostile_peer import dial
from tests.support.journey import BYTES, HTTP, LINES, OUTSIDE, WEB
from tests.support.lab import until
from tests.support.mint import spiffe
from tests.support.peers import envoy, envoy_client, envoy_server
from tests.support.talk import carries_everything, gets_nothing

PORTS = {HTTP: 19080, LINES: 19000, BYTES: 19001}


def _dial_through(place: Arena, port: int) -> socket.socket:
    return dial(place.lab, OUTSIDE, "127.0.0.1", PORTS[port])


def _authorities(place: Arena, host: str = "") -> dict[int, str]:
    return {local: f"{host or place.far}:{port}" for port, local in PORTS.items()}


def test_envoy_as_client_reaches_a_pod_of_the_mesh_as_the_identity_it_has(place: Arena, tmp_path: Path) -> None:
    config = envoy_client(place.mint, place.web, place.far, spiffe("far"), _authorities(place))
    with envoy(place.lab, OUTSIDE, config, PORTS[HTTP], tmp_path):
        carries_everything(lambda port: _dial_through(place, port))


def test_envoy_as_client_may_name_the_service_instead_of_the_address(place: Arena, tmp_path: Path) -> None:
    names = _authorities(place, "far.shop.svc.cluster.local")
    config = envoy_client(place.mint, place.web, place.far, spiffe("far"), names)
    with envoy(place.lab, OUTSIDE, config, PORTS[HTTP], tmp_path):
        carries_everything(lambda port: _dial_through(place, port), megabytes=1)


def test_envoy_as_client_with_an_identity_that_policy_denies_gets_nothing(place: Arena, tmp_path: Path) -> None:
    evil = place.mint.leaf(spiffe("evil"))
    config = envoy_client(place.mint, evil, place.far, spiffe("far"), _authorities(place))
    with envoy(place.lab, OUTSIDE, config, PORTS[HTTP], tmp_path):
        gets_nothing(lambda port: _dial_through(place, port))


def test_envoy_as_client_takes_our_server_for_nobody_else(place: Arena, tmp_path: Path) -> None:
    """Our server's certificate is its pod's: Envoy that expects another identity refuses it."""
    config = envoy_client(place.mint, place.web, place.far, spiffe("near"), _authorities(place))
    with envoy(place.lab, OUTSIDE, config, PORTS[HTTP], tmp_path):
        gets_nothing(lambda port: _dial_through(place, port))


@pytest.mark.parametrize("port", [HTTP, LINES, BYTES])
def test_envoy_as_server_is_reached_by_a_pod_of_the_mesh(place: Arena, tmp_path: Path, port: int) -> None:
    host = place.mesh.host(FOREIGN, 4)
    config = envoy_server(place.mint, place.mint.leaf(spiffe("foreign", "plain")), host, port)
    with envoy(place.lab, FOREIGN, config, 15008, tmp_path) as log:
        sock = dial(place.lab, WEB, host, port)
        with sock:
            sock.settimeout(60)
            if port == LINES:
                assert sock.recv(100).startswith(b"hello")
            elif port == HTTP:
                sock.sendall(b"GET /id HTTP/1.0\r\n\r\n")
                assert sock.recv(65536).startswith(b"HTTP/1.1 200")
            else:
                sock.sendall(bytes(2 << 20))
                sock.shutdown(socket.SHUT_WR)
                assert len(sock.makefile("rb").read()) == 4 << 20
        told = until("Envoy's access log", lambda: (text := log.read_text()) * ("peer=" in text))
    assert f"peer={spiffe('web')} {host}:{port} 200" in told
    assert "k8s.namespace.name=shop" in told
    assert f'forwarded=for="{place.mesh.host(WEB, 4)}:' in told
    assert "trace=00-" in told


def test_envoy_as_server_with_another_identity_gets_no_traffic(place: Arena, tmp_path: Path) -> None:
    host = place.mesh.host(FOREIGN, 4)
    config = envoy_server(place.mint, place.mint.leaf(spiffe("somebody", "plain")), host, HTTP)
    with envoy(place.lab, FOREIGN, config, 15008, tmp_path) as log:
        gets_nothing(lambda port: dial(place.lab, WEB, host, port))
        assert " 200 " not in log.read_text()


def test_nobody_at_the_tunnels_port_means_no_traffic_and_never_plain_text(place: Arena) -> None:
    gets_nothing(lambda port: dial(place.lab, WEB, place.mesh.host(FOREIGN, 4), port))
