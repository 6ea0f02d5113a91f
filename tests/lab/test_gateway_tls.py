"""HTTPS at an ingress gateway: certificates from Secrets, by server name, changed under way; clients that prove who
they are to an authority of the enterprise.
"""

from __future__ import annotations

import base64
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtensionOID

from ambient.cli.demo.stage import PYTHON
from ambient.kube.objects import Gateway
from tests.support.gateway_lab import ask, at_gateway, gateway_lab, removed, route_yaml, settled, statuses, to
from tests.support.lab import LabUnderTest, object_yaml, pod_yaml, until
from tests.support.mint import Leaf
from tests.support.tunnel_certs import Authority
from tests.support.waypoint_lab import service_yaml

SITES = Authority("sites")
ENTERPRISE = Authority("enterprise").mint
LISTENERS: tuple[dict[str, Any], ...] = (
    {
        "name": "site",
        "port": 443,
        "protocol": "HTTPS",
        "hostname": "site.example.com",
        "tls": {"certificateRefs": [{"name": "site"}]},
    },
    {
        "name": "staff",
        "port": 443,
        "protocol": "HTTPS",
        "hostname": "*.staff.example.com",
        "tls": {
            "certificateRefs": [{"name": "staff"}],
            "frontendValidation": {"caCertificateRefs": [{"kind": "ConfigMap", "name": "enterprise"}]},
        },
    },
)


def leaf(*names: str) -> Leaf:
    return SITES.mint.leaf(names=[x509.DNSName(one) for one in names], usages=("server",))


def secret_yaml(name: str, of: Leaf) -> str:
    texts = {"tls.crt": of.chain, "tls.key": of.key}
    data = {key: base64.b64encode(text.encode()).decode() for key, text in texts.items()}
    return object_yaml("v1", "Secret", name, "shop", type="kubernetes.io/tls", data=data)


PASSED = leaf("passed.example.com")
SERVER = r"""
import http.server, os, ssl
class Hello(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(b'{"pod": "passed-1"}')
    def log_message(self, *args): pass
server = http.server.ThreadingHTTPServer(("0.0.0.0", 8443), Hello)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
link = os.memfd_create("pem"); os.write(link, os.environ["PEM"].encode())
context.load_cert_chain(f"/proc/self/fd/{link}")
server.socket = context.wrap_socket(server.socket, server_side=True)
server.serve_forever()
"""
LISTENERS += (
    {
        "name": "guest",
        "port": 443,
        "protocol": "HTTPS",
        "hostname": "guest.staff.example.com",
        "tls": {
            "certificateRefs": [{"name": "staff"}],
            "frontendValidation": {
                "caCertificateRefs": [{"kind": "ConfigMap", "name": "enterprise"}],
                "mode": "AllowInsecureFallback",
            },
        },
    },
    {
        "name": "passed",
        "port": 443,
        "protocol": "TLS",
        "hostname": "passed.example.com",
        "tls": {"mode": "Passthrough"},
    },
)
CARRIED = {"parentRefs": [{"name": "front"}], "rules": [{"backendRefs": [{"name": "passed", "port": 443}]}]}
SCENE = (
    route_yaml("all", to("web"))
    + object_yaml("gateway.networking.k8s.io/v1", "TLSRoute", "passed", "shop", spec=CARRIED)
    + service_yaml("passed", {"name": "tls", "port": 443, "targetPort": 8443}, app="passed")
    + pod_yaml(
        "shop/passed-1",
        [PYTHON, "-u", "-c", SERVER],
        node="n2",
        account="web",
        labels={"app": "passed"},
        env=[{"name": "PEM", "value": PASSED.key + PASSED.chain}],
        readiness={"tcpSocket": {"port": 8443}, "periodSeconds": 1},
    )
    + secret_yaml("site", leaf("site.example.com"))
    + secret_yaml("staff", leaf("*.staff.example.com"))
    + object_yaml("v1", "ConfigMap", "enterprise", "shop", data={"ca.crt": ENTERPRISE.roots})
)


@pytest.fixture(scope="module")
def lab() -> Iterator[LabUnderTest]:
    texts = {"root": SITES.roots, "good": staff(ENTERPRISE), "bad": staff(SITES.mint)}
    with gateway_lab(SCENE, *LISTENERS) as lab:
        try:
            for name, text in texts.items():
                Path(kept(lab, name)).write_text(text)
            yield lab
        finally:
            for name in texts:
                Path(kept(lab, name)).unlink(missing_ok=True)


def staff(mint: Any) -> str:
    of: Leaf = mint.leaf(names=[x509.DNSName("ann.example.com")], usages=("client",), title="ann")
    return of.key + of.chain


def kept(lab: LabUnderTest, name: str) -> str:
    """The path of a file that pods see as well."""
    return str(Path(tempfile.gettempdir()) / f"{lab.name}-{name}.pem")


def secure(lab: LabUnderTest, host: str, *words: str) -> tuple[int, dict[str, Any]]:
    root = ["--cacert", kept(lab, "root")]
    return ask(lab, host, *root, *words, port=443, scheme="https")


def shown(lab: LabUnderTest, host: str) -> str:
    """The certificate that a client is shown, in PEM."""
    where = ["-connect", f"{lab.ip('shop/front-istio')}:443", "-servername", host]
    done = lab.exec("outside/client", "sh", "-c", f"openssl s_client {' '.join(where)} </dev/null | openssl x509")
    return done.stdout.strip()


def until_shown(lab: LabUnderTest, of: Leaf) -> None:
    until("the new certificate is shown", lambda: shown(lab, "site.example.com") == of.chain.strip())


def test_each_site_proves_itself_with_its_own_certificate_and_answers_for_no_other(lab: LabUnderTest) -> None:
    status, heard = secure(lab, "site.example.com")
    assert (status, heard["pod"]) == (200, "web-1")
    assert heard["headers"]["x-forwarded-proto"] == "https"
    assert secure(lab, "other.example.com")[0] == 0  # no listener has that name
    assert secure(lab, "site.example.com", "-H", "host: ann.staff.example.com")[0] == 421  # of another listener
    assert secure(lab, "site.example.com", "--http1.1")[0] == 200


def test_only_clients_whom_the_enterprise_vouches_for_get_in_and_the_application_learns_who(lab: LabUnderTest) -> None:
    good, bad = (["--cert", kept(lab, one)] for one in ("good", "bad"))
    forged = ["-H", "x-forwarded-client-cert: Subject=boss"]
    status, heard = secure(lab, "a.staff.example.com", *good, *forged)
    assert status == 200
    assert "ann" in heard["headers"]["x-forwarded-client-cert"]
    assert "boss" not in heard["headers"]["x-forwarded-client-cert"]
    assert secure(lab, "a.staff.example.com", *bad)[0] == 0
    assert secure(lab, "a.staff.example.com")[0] == 0
    assert "x-forwarded-client-cert" not in secure(lab, "site.example.com", *forged)[1]["headers"]


def test_where_anybody_is_let_in_the_application_is_told_of_nobody(lab: LabUnderTest) -> None:
    for words in (["--cert", kept(lab, "good")], ["--cert", kept(lab, "bad")], []):
        forged = ["-H", "x-forwarded-client-cert: Subject=boss"]
        status, heard = secure(lab, "guest.staff.example.com", *words, *forged)
        assert status == 200
        assert "x-forwarded-client-cert" not in heard["headers"]


def test_what_is_carried_unread_ends_at_the_pod_and_a_policy_decides_who_gets_that_far(lab: LabUnderTest) -> None:
    assert secure(lab, "passed.example.com") == (200, {"pod": "passed-1"})
    assert shown(lab, "passed.example.com") == PASSED.chain.strip()
    own = {"from": [{"source": {"ipBlocks": [lab.ip("outside/client")]}}]}
    settled(lab, at_gateway("by-address", "DENY", own))
    until("whoever is denied is cut off", lambda: secure(lab, "passed.example.com")[0] == 0)
    assert secure(lab, "site.example.com")[0] == 403
    removed(lab, at_gateway("by-address", "DENY"))
    until("nobody is any more", lambda: secure(lab, "passed.example.com")[0] == 200)


def test_a_new_certificate_is_shown_and_no_request_is_lost(lab: LabUnderTest) -> None:
    asking = (
        "import http.client,socket,ssl,sys\n"
        "context=ssl.create_default_context(cafile=sys.argv[2])\n"
        "print('begun',flush=True); lost=0; count=0\n"
        "import select\n"
        "while not select.select([sys.stdin],[],[],0)[0]:\n"
        " try:\n"
        "  raw=socket.create_connection((sys.argv[1],443),60)\n"
        "  link=http.client.HTTPSConnection('site.example.com',context=context)\n"
        "  link.sock=context.wrap_socket(raw,server_hostname='site.example.com')\n"
        "  link.request('GET','/'); lost+=link.getresponse().status!=200; count+=1; link.close()\n"
        " except OSError: lost+=1\n"
        "print(count,lost,flush=True)\n"
    )
    root = kept(lab, "root")
    before = shown(lab, "site.example.com")
    with lab.start("outside/client", PYTHON, "-c", asking, lab.ip("shop/front-istio"), root) as client:
        assert client.stdout is not None
        assert client.stdin is not None
        assert client.stdout.readline() == "begun\n"
        for _ in range(3):
            new = leaf("site.example.com")
            settled(lab, secret_yaml("site", new))
            until_shown(lab, new)
        assert before != shown(lab, "site.example.com")
        client.stdin.write("end\n")
        client.stdin.flush()
        count, lost = client.stdout.readline().split()
    assert (int(count) > 0, lost) == (True, "0")


def beyond_reading() -> Leaf:
    """With a key usage that is none: the control plane cannot read it, and lets Envoy have the say."""
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    names = x509.SubjectAlternativeName([x509.DNSName("site.example.com")])
    made = x509.CertificateBuilder().subject_name(x509.Name([])).issuer_name(x509.Name([])).serial_number(7)
    made = made.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    made = made.public_key(key.public_key()).add_extension(names, critical=True)
    made = made.add_extension(x509.UnrecognizedExtension(ExtensionOID.KEY_USAGE, b"junk"), critical=False)
    text = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    return Leaf(text, made.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM).decode())


def test_what_envoy_alone_does_not_take_is_said_and_the_last_good_certificate_stays(lab: LabUnderTest) -> None:
    def resolved() -> dict[str, tuple[str, str]]:
        gateway = lab.lab.records().find(Gateway, "shop", "front")
        listed = gateway.raw.get("status", {}).get("listeners", []) if gateway is not None else []
        return {one["name"]: statuses(one["conditions"])["ResolvedRefs"] for one in listed}

    good, well = leaf("site.example.com"), ("True", "ResolvedRefs")
    settled(lab, secret_yaml("site", good))
    until_shown(lab, good)
    assert (resolved()["site"], resolved()["staff"]) == (well, well)
    lab.apply(secret_yaml("site", beyond_reading()))
    until("the listener says so", lambda: resolved()["site"] == ("False", "InvalidCertificateRef"))
    assert resolved()["staff"] == well
    until_shown(lab, good)
    lab.apply(secret_yaml("site", leaf("site.example.com")))
    until("all is well again", lambda: resolved()["site"] == well)


def test_keys_are_in_no_log_and_on_no_page(lab: LabUnderTest) -> None:
    fresh = leaf("site.example.com")
    settled(lab, secret_yaml("site", fresh))
    line = fresh.key.splitlines()[1]
    logs = list((lab.names.folder / "logs").rglob("*.log"))
    assert logs
    assert [str(path) for path in logs if line in path.read_text(errors="replace")] == []
