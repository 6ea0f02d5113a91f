"""openssl as a judge of our CA: it makes a request that we sign, and verifies what we made."""

from __future__ import annotations

import subprocess
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest

from ambient.ca.csr import parse_csr
from ambient.ca.issue import issue, issue_server
from ambient.ca.roots import Authority, load_authority, make_root

IDENTITY = "spiffe://cluster.local/ns/shop/sa/web"


def openssl(*arguments: str, folder: Path, fails: bool = False) -> str:
    done = subprocess.run(["openssl", *arguments], cwd=folder, capture_output=True, text=True, timeout=100)
    assert (done.returncode != 0) is fails, done.stderr
    return done.stdout + done.stderr


def authority() -> Authority:
    certificate, key = make_root(datetime.now(UTC))
    return load_authority({"root-cert.pem": certificate.encode(), "root-key.pem": key.encode()}, datetime.now(UTC))


def test_a_request_made_by_openssl_is_signed_and_its_certificate_verified_by_openssl(tmp_path: Path) -> None:
    openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "key.pem", folder=tmp_path)
    extension = f"subjectAltName=critical,URI:{IDENTITY}"
    openssl("req", "-new", "-key", "key.pem", "-subj", "/", "-addext", extension, "-out", "csr.pem", folder=tmp_path)
    issued = issue(authority(), parse_csr((tmp_path / "csr.pem").read_text()), datetime.now(UTC), None)
    (tmp_path / "leaf.pem").write_text(issued.chain[0])
    (tmp_path / "root.pem").write_text(issued.chain[-1])
    for purpose in ("sslclient", "sslserver"):
        verify = ("verify", "-x509_strict", "-purpose", purpose, "-CAfile", "root.pem", "leaf.pem")
        assert "leaf.pem: OK" in openssl(*verify, folder=tmp_path)
    text = openssl("x509", "-in", "leaf.pem", "-noout", "-text", folder=tmp_path)
    assert "X509v3 Subject Alternative Name: critical" in text
    assert f"URI:{IDENTITY}" in text
    assert "CA:FALSE" in text


def test_a_leaf_cannot_sign_another_and_another_root_does_not_vouch(tmp_path: Path) -> None:
    openssl("ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", "key.pem", folder=tmp_path)
    extension = f"subjectAltName=URI:{IDENTITY}"
    openssl("req", "-new", "-key", "key.pem", "-subj", "/", "-addext", extension, "-out", "csr.pem", folder=tmp_path)
    issued = issue(authority(), parse_csr((tmp_path / "csr.pem").read_text()), datetime.now(UTC), None)
    (tmp_path / "leaf.pem").write_text(issued.chain[0])
    (tmp_path / "root.pem").write_text(issued.chain[-1])
    (tmp_path / "other.pem").write_text(authority().roots)
    forge = ("x509", "-req", "-in", "csr.pem", "-CA", "leaf.pem", "-CAkey", "key.pem", "-CAcreateserial")
    openssl(*forge, "-out", "forged.pem", folder=tmp_path)
    chain = ("verify", "-x509_strict", "-CAfile", "root.pem", "-untrusted", "leaf.pem", "forged.pem")
    openssl(*chain, folder=tmp_path, fails=True)
    openssl("verify", "-CAfile", "other.pem", "leaf.pem", folder=tmp_path, fails=True)


@pytest.mark.parametrize(
    ("option", "name"), [("-verify_hostname", "istiod.istio-system.svc"), ("-verify_ip", "10.0.0.1")]
)
def test_the_servers_certificate_is_good_for_its_name_and_its_address(tmp_path: Path, option: str, name: str) -> None:
    lifetime = timedelta(hours=1)
    names, addresses = ["istiod.istio-system.svc"], [ip_address("10.0.0.1")]
    issued, _ = issue_server(authority(), names, addresses, datetime.now(UTC), lifetime)
    (tmp_path / "leaf.pem").write_text(issued.chain[0])
    (tmp_path / "root.pem").write_text(issued.chain[-1])
    verify = ("verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", "root.pem")
    assert "OK" in openssl(*verify, option, name, "leaf.pem", folder=tmp_path)
    openssl(*verify, "-verify_hostname", "other.example", "leaf.pem", folder=tmp_path, fails=True)
