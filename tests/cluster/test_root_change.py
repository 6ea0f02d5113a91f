"""The mesh's own root is changed on a real cluster, as docs/certificates.md says, and no connection fails.

Nobody is hurried: each step waits until every ztunnel has taken over the one before, by the ConfigMap that the kubelet
shows it.
"""

from __future__ import annotations

import base64
import json
import re
import shlex
from pathlib import Path

from cryptography import x509

from tests.support.kube import Kube, account, eventually, pod, service
from tests.support.kube_apps import PORTS, Load, server

DOC = Path(__file__).parents[2] / "docs" / "certificates.md"
SHOP = "roots"
PATIENCE_S = 150.0
"""The kubelet shows a changed ConfigMap after a minute or so."""


def commands(word: str) -> list[list[str]]:
    """The kubectl commands of the page that have this word in them, without what a shell does after them."""
    text = DOC.read_text().replace("\\\n", " ")
    lines = [line.strip() for line in text.splitlines() if line.startswith("    kubectl") and word in line]
    assert lines, f"no command with {word} in {DOC.name}"
    found = []
    for line in lines:
        before = re.sub(r"\$\(date \+%s\)", "123", line.split(" | ")[0])
        found.append(shlex.split(before)[1:])
    return found


def held(kube: Kube) -> list[tuple[str, list[str]]]:
    """Of every certificate of every ztunnel the key that signed it, and the serial numbers of its roots."""
    done = kube.ambient("certs", "-o", "json")
    found = []
    for entry in json.loads(done.stdout) if done.returncode == 0 else ():
        if entry.get("state") != "Available":
            return []
        leaf = x509.load_pem_x509_certificate(base64.b64decode(entry["certChain"][0]["pem"]))
        signer = leaf.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier or b""
        found.append((signer.hex(), sorted(root["serialNumber"] for root in entry["rootCerts"])))
    return found


def everywhere(kube: Kube, signers: int, roots: int, other_than: str = "") -> str:
    """Wait until all certificates have so many roots, and one signer, which is not `other_than`; gives him."""
    seen: list[str] = []

    def done() -> bool:
        found = held(kube)
        seen[:] = sorted({signer for signer, _ in found})
        same = len({tuple(trusted) for _, trusted in found}) == 1 and len(found[0][1]) == roots
        return same and len(seen) == signers and other_than not in seen

    eventually(done, f"for {roots} roots everywhere", PATIENCE_S)
    return seen[0]


def test_by_the_page_no_connection_fails_while_the_root_is_changed(kube: Kube) -> None:
    (begin,), (on,), (show,) = commands("begin@"), commands("next@"), commands("rotation")
    with kube.namespace(SHOP):
        nodes = [node["metadata"]["name"] for node in kube.all("nodes")]
        kube.apply(
            account(SHOP, "db"),
            service(SHOP, "db", **PORTS),
            pod(SHOP, "db", server(kube, node=nodes[0], account="db")),
        )
        kube.ready(SHOP)
        load = Load(kube, SHOP, "load", f"db.{SHOP}", node=nodes[-1])
        old = everywhere(kube, 1, 1)
        kube.run(*begin)
        assert everywhere(kube, 1, 2) == old
        assert "announced" in base64.b64decode(kube.run(*show)).decode()
        kube.run(*[word.replace("next@123", "next@1") for word in on])
        new = everywhere(kube, 1, 2, other_than=old)
        kube.run(*[word.replace("next@123", "next@2") for word in on])
        assert everywhere(kube, 1, 1) == new
        load.more(100)
        assert load.failures() == []
        assert new != old


def test_the_other_commands_of_the_page_are_understood(kube: Kube, tmp_path: Path) -> None:
    (events,) = commands("IdentityRefused")
    kube.run(*events)
    (create,) = commands("create secret")
    for name in ("ca-cert.pem", "ca-key.pem", "cert-chain.pem", "root-cert.pem"):
        (tmp_path / name).write_text("x")
    given = [word.replace("--from-file=", f"--from-file={tmp_path}/") for word in create]
    assert "cacerts" in kube.run(*given, "--dry-run=server")
