"""A lab with an egress gateway for names that its clients choose, and the resolver that it asks: a test's own, which
says of each name what the test wants at that moment.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ambient.lab.names import NETNS_DIR
from tests.support.egress_lab import NETWORKING, Egress, client_leaf, credential_yaml, egress_lab
from tests.support.lab import object_yaml, until

DOMAIN: Final = "wild.example.com"
ENTRY: Final = {"group": "networking.istio.io", "kind": "ServiceEntry", "name": "wild"}
PORTS: Final = (
    {"number": 83, "name": "http-plain", "protocol": "HTTP", "targetPort": 8080},
    {"number": 81, "name": "http-simple", "protocol": "HTTP", "targetPort": 8444},
    {"number": 8080, "name": "http-same", "protocol": "HTTP"},
    {"number": 8444, "name": "tls", "protocol": "TLS"},
)
RESOLVER: Final = r"""
import json, pathlib, socket, sys
from ambient.model.dns import read_query, write_answer
told = pathlib.Path(sys.argv[1])
sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind(("127.0.0.1", 53))
while True:
    data, peer = sock.recvfrom(4096)
    query = read_query(data)
    said = json.loads(told.read_text())
    addresses = said.get(query.name, said["*"] if query.name.endswith(".wild.example.com") else [])
    sock.sendto(write_answer(query, addresses, ttl_s=1), peer)
"""


def wild_yaml(name: str = "wild", **more: Any) -> str:
    spec = {"hosts": [f"*.{DOMAIN}"], "ports": list(PORTS), "resolution": "DYNAMIC_DNS", **more}
    labels = {"istio.io/use-waypoint": "waypoint"}
    return object_yaml(NETWORKING, "ServiceEntry", name, "shop", labels=labels, spec=spec)


@dataclass(frozen=True)
class Wild:
    out: Egress
    file: Path

    def say(self, **names: list[str]) -> None:
        """What names below the domain lead to, by their first labels ("_" for "."); others to the machine outside."""
        said = {f"{name.replace('_', '.')}.{DOMAIN}": addresses for name, addresses in names.items()}
        fresh = self.file.with_suffix(".new")
        fresh.write_text(json.dumps({"*": [self.out.address], **said}))
        fresh.replace(self.file)

    def ask(self, name: str, *words: str, port: int = 83, pod: str = "shop/client", scheme: str = "http") -> Any:
        """What the server saw; the status where it was not asked."""
        return self.out.ask_at(f"{scheme}://{name}.{DOMAIN}:{port}/", "-k", *words, pod=pod)


@contextmanager
def wild_lab(more: str = "") -> Iterator[Wild]:
    env = {"ztunnel:AMBIENT_OUTBOUND": "REGISTRY_ONLY", "waypoint:AMBIENT_NAMESERVERS": "127.0.0.1"}
    secret = credential_yaml("partner", client_leaf("first"))
    with tempfile.TemporaryDirectory() as folder, egress_lab(secret + more, env=env, reach=True) as out:
        made = Wild(out, Path(folder) / "names.json")
        made.say()
        netns = NETNS_DIR / out.lab.names.pod("shop", "waypoint")
        argv = ["nsenter", f"--net={netns}", "--", sys.executable, "-u", "-c", RESOLVER, str(made.file)]
        with subprocess.Popen(argv) as resolver:
            try:
                out.apply(wild_yaml())
                out.known(f"*.{DOMAIN}", "wild")
                until("the first request gets out", lambda: isinstance(made.ask("first"), dict), 60)
                yield made
            finally:
                resolver.kill()
