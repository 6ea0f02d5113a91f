"""curl and openssl at a pod's tunnel port: what a person would try first."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.arena import Arena
from tests.support.features import need
from tests.support.journey import HTTP, OUTSIDE
from tests.support.mint import spiffe
from tests.support.peers import command_in


class Kit:
    """Files of a certificate, and commands in the outside pod that use them."""

    def __init__(self, place: Arena, folder: Path) -> None:
        self._place = place
        self.chain, self.key = place.web.save(folder, "web")
        self.root = folder / "root.pem"
        self.root.write_text(place.mint.roots)

    def run(self, *argv: str, text: str = "") -> subprocess.CompletedProcess[str]:
        command = command_in(self._place.lab, OUTSIDE, *argv)
        return subprocess.run(
            command, input=text, capture_output=True, text=True, errors="replace", timeout=100, check=False
        )

    def s_client(self, *options: str) -> str:
        """All that openssl says about a handshake with `far`."""
        done = self.run("openssl", "s_client", "-connect", f"{self._place.far}:15008", *options)
        return done.stdout + done.stderr

    @property
    def certificate(self) -> tuple[str, ...]:
        return ("-cert", str(self.chain), "-key", str(self.key), "-CAfile", str(self.root))


@pytest.fixture
def kit(place: Arena, tmp_path: Path) -> Iterator[Kit]:
    yield Kit(place, tmp_path)
    place.unharmed()


def test_openssl_agrees_on_tls_1_3_and_h2_and_verifies_the_pods_identity(kit: Kit) -> None:
    told = kit.s_client("-alpn", "h2", *kit.certificate, "-showcerts")
    assert "New, TLSv1.3" in told
    assert "ALPN protocol: h2" in told
    assert "Verify return code: 0 (ok)" in told
    leaf = told[told.index("-----BEGIN") : told.index("-----END CERTIFICATE-----") + 26]
    text = kit.run("openssl", "x509", "-noout", "-text", text=leaf).stdout
    assert f"URI:{spiffe('far')}" in text
    assert "CA:FALSE" in text


def test_openssl_with_tls_1_2_is_refused(kit: Kit) -> None:
    told = kit.s_client("-alpn", "h2", "-tls1_2", *kit.certificate)
    assert "alert protocol version" in told or "tlsv1 alert" in told
    assert "New, TLSv1.2" not in told


def test_openssl_without_a_certificate_is_refused(kit: Kit) -> None:
    told = kit.s_client("-alpn", "h2", "-CAfile", str(kit.root), "-ign_eof")
    assert "alert certificate required" in told


def test_openssl_is_asked_for_a_certificate_of_our_authority(kit: Kit) -> None:
    assert "Requested Signature Algorithms" in kit.s_client("-alpn", "h2", *kit.certificate)


def test_openssl_is_given_no_ticket_to_come_back_with(place: Arena, kit: Kit) -> None:
    options = ["-alpn", "h2", *kit.certificate, "-ign_eof", "-msg"]
    connect = ("openssl", "s_client", "-connect", f"{place.far}:15008", *options)
    # How long is listened for one: longer where even the handshake was not over by then.
    heard = (kit.run("timeout", str(seconds), *connect).stdout for seconds in (1, 5, 20))
    told = next(said for said in heard if "Finished" in said)
    assert "NewSessionTicket" not in told


@pytest.mark.parametrize("group", ["X25519", "P-256", "P-384"])
@pytest.mark.parametrize("suite", ["TLS_AES_256_GCM_SHA384", "TLS_AES_128_GCM_SHA256"])
def test_openssl_may_choose_group_and_suite_as_istio_lets_it(kit: Kit, group: str, suite: str) -> None:
    told = kit.s_client("-alpn", "h2", "-groups", group, "-ciphersuites", suite, *kit.certificate)
    assert f"New, TLSv1.3, Cipher is {suite}" in told


def test_openssl_with_a_suite_that_istio_has_not_is_refused(kit: Kit) -> None:
    told = kit.s_client("-alpn", "h2", "-ciphersuites", "TLS_CHACHA20_POLY1305_SHA256", *kit.certificate)
    assert "alert handshake failure" in told
    assert "Cipher is TLS" not in told


def test_curl_speaks_http_1_to_a_tunnel_in_vain(place: Arena, kit: Kit) -> None:
    tls = ["--cert", str(kit.chain), "--key", str(kit.key), "--insecure"]
    done = kit.run("curl", "-sS", "--http1.1", "--max-time", "30", *tls, f"https://{place.far}:15008/")
    assert done.returncode != 0
    assert not done.stdout


def test_curl_speaks_http_2_but_not_connect_and_is_told_so(place: Arena, kit: Kit) -> None:
    tls = ["--cert", str(kit.chain), "--key", str(kit.key), "--insecure"]
    url = f"https://{place.far}:15008/"
    done = kit.run("curl", "-sS", "--http2", "--max-time", "30", "-o", "/dev/null", "-w", "%{http_code}", *tls, url)
    assert done.stdout == "400", done.stderr


def test_curl_asks_through_the_tunnel(place: Arena, kit: Kit) -> None:
    need("curl with HTTP/2 to proxies")
    tls = ["--proxy-cert", str(kit.chain), "--proxy-key", str(kit.key), "--proxy-insecure"]
    proxy = ["--proxy-http2", "--proxytunnel", "--proxy", f"https://{place.far}:15008"]
    done = kit.run("curl", "-sS", "--max-time", "30", *proxy, *tls, f"http://{place.far}:{HTTP}/id")
    assert '"peer"' in done.stdout, done.stderr
