"""The story, chapter by chapter. Each takes the stage and the telling; the order of chapters matters."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from time import monotonic
from typing import Any, Final

from ambient.cli.demo.capture import Capture
from ambient.cli.demo.meters import COUNTERS, traffic
from ambient.cli.demo.stage import Conversation, Stage, manifest, until
from ambient.cli.demo.telling import Telling
from ambient.cli.reach import LabReach

URL: Final = "http://db.shop"
HOST: Final = "db.shop"
WEB: Final = "shop/web"
BATCH: Final = "shop/batch"
OUTSIDE: Final = "plain/outside"
LABEL: Final = "istio.io/dataplane-mode"
LINES_PORT: Final = 7000
BYTES_PORT: Final = 7001
STATS_PORT: Final = 15020
SPIFFE: Final = "spiffe://cluster.local/ns/shop/sa/"
CUT_S: Final = 10.0
"""A change of policy ends what it forbids within this, once the nodes have acknowledged it."""


@dataclass
class Scene:
    """What later chapters need of earlier ones."""

    stage: Stage
    tell: Telling
    secret: str
    server: dict[str, Any] = field(default_factory=dict)
    open: dict[str, Conversation] = field(default_factory=dict)

    def server_now(self, pod: str = WEB) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.stage.ask(pod, f"{URL}/id").out or "{}")
        return answer

    def reaches(self, pod: str) -> bool:
        return self.stage.ask(pod, f"{URL}/id").code == 0

    def close(self) -> None:
        for conversation in self.open.values():
            conversation.close()


def without_the_mesh(scene: Scene) -> None:
    stage, tell = scene.stage, scene.tell
    tell.chapter("Without the mesh")
    stage.up()
    stage.apply(manifest("app"))
    tell.holds("a lab of two nodes and four pods is up, no pod in the mesh", not _enrolled(stage), f"lab {stage.lab}")
    scene.server = until("web reaches db", scene.server_now)  # once db is ready and the Service knows it
    tell.holds("web on n1 reaches db on n2 by its service name", scene.server.get("started"))
    with Capture(stage.lab, "n2") as capture:
        echoed = stage.ask(WEB, URL, scene.secret).out
    tell.holds("a secret goes there and back", echoed == scene.secret)
    tell.holds("a capture on n2 shows the secret to anybody", capture.shows(scene.secret.encode()))
    scene.open["web, before"] = stage.talk(WEB, HOST, LINES_PORT)
    hello = scene.open["web, before"].next()
    tell.holds("web keeps a connection open (the server speaks first)", hello.startswith("got hello"), hello)


def joining(scene: Scene) -> None:
    stage, tell = scene.stage, scene.tell
    tell.chapter("The namespace joins by a label")
    began = monotonic()
    stage.label("shop", f"{LABEL}=ambient")
    tell.holds(
        f"label namespace shop {LABEL}=ambient: every node has acknowledged", True, f"{monotonic() - began:.1f} s"
    )
    enrolled = _enrolled(stage)
    tell.holds(
        "its three pods are in the mesh, the one of namespace plain is not", enrolled == _SHOP, ", ".join(enrolled)
    )
    now = scene.server_now()
    tell.holds("no pod was restarted", now.get("started") == scene.server["started"], f"db is process {now.get('pid')}")
    tell.holds("the connection from before goes on untouched", scene.open["web, before"].echo("still here"))


def encrypted(scene: Scene) -> None:
    stage, tell = scene.stage, scene.tell
    tell.chapter("Between nodes everything is mutual TLS")
    with Capture(stage.lab, "n1") as first, Capture(stage.lab, "n2") as second:
        echoed = stage.ask(WEB, URL, scene.secret).out
    tell.holds("the same request goes there and back", echoed == scene.secret)
    web = _addresses(stage, WEB)
    for node, capture in (("n1", first), ("n2", second)):
        tell.holds(f"{node}: what went to port 15008 is TLS", capture.tls_on(15008))
        tell.holds(f"{node}: not one byte of the secret on any wire", not capture.shows(scene.secret.encode()))
        seen = capture.ports_from(web)
        tell.holds(f"{node}: web sent nothing to any other port", seen == {15008}, f"ports {sorted(seen)}")
    peer = scene.server_now().get("peer")
    tell.holds("db still sees web's own address", peer in web, peer)


def identities(scene: Scene) -> None:
    tell = scene.tell
    tell.chapter("Who spoke to whom is in the access logs")
    for node, direction in (("n1", "outbound"), ("n2", "inbound")):
        wanted = (f'src.identity="{SPIFFE}web"', f'dst.identity="{SPIFFE}db"', f'direction="{direction}"')
        logged = until(f"the access log of {node} names both identities", partial(_logged, scene, node, wanted))
        tell.holds(f"{node}: src.identity and dst.identity, {direction}", logged)


def strict(scene: Scene) -> None:
    stage, tell = scene.stage, scene.tell
    tell.chapter("STRICT keeps out who has no identity")
    tell.holds("before: a pod outside the mesh reaches db", scene.reaches(OUTSIDE))
    outside = scene.open["outside"] = stage.talk(OUTSIDE, HOST, LINES_PORT)
    tell.holds("and keeps a connection open", outside.next().startswith("got hello"))
    probes = scene.server_now().get("probes", 0)
    stage.apply(manifest("strict"))
    _is_cut(tell, "its", outside)
    ended = scene.open["web, before"].next()
    tell.holds("so is web's from before the mesh: it has no identity either", ended.startswith(("closed", "ended")))
    tell.holds("the outsider is refused from now on", not scene.reaches(OUTSIDE))
    tell.holds("web, which has one, gets through", scene.reaches(WEB))
    more = until("probes go on", lambda: scene.server_now().get("probes", 0) > probes + 1 and scene.server_now())
    tell.holds("the kubelet's probes still pass", _ready(stage, "shop/db"), f"{more['probes'] - probes} more")


def policy(scene: Scene) -> None:
    stage, tell = scene.stage, scene.tell
    tell.chapter("A policy lets web in and keeps batch out")
    tell.holds("before: batch reaches db", scene.reaches(BATCH))
    for pod, name in ((WEB, "web"), (BATCH, "batch")):
        scene.open[name] = stage.talk(pod, HOST, LINES_PORT)
        tell.holds(f"{name} keeps a connection open", scene.open[name].next().startswith("got hello"))
    stage.apply(manifest("only-web"))
    _is_cut(tell, "batch's", scene.open["batch"])
    tell.holds("web's goes on", scene.open["web"].echo("still allowed"))
    tell.holds("batch is refused", not scene.reaches(BATCH))
    tell.holds("web gets through", scene.reaches(WEB))
    denied = stage.command("explain", "--name", stage.lab, BATCH, f"{HOST}:80")
    tell.holds(
        "explain batch says denied, by this policy", denied.code == 3 and "shop/only-web" in denied.out, "exit code 3"
    )
    _quote(tell, denied.out)
    allowed = stage.command("explain", "--name", stage.lab, WEB, f"{HOST}:80")
    tell.holds("explain web says allowed, by this policy", allowed.code == 0 and "shop/only-web" in allowed.out)
    _quote(tell, allowed.out)
    asked = ("flows", "--name", stage.lab, "event=denied", "policy=shop/only-web", f"from={BATCH}")
    seen = until("flows show the denial with its policy", lambda: stage.must(*asked).splitlines()[1:])
    tell.holds("flows show the denial with its policy", seen, seen[0].strip() if seen else "")


def numbers(scene: Scene) -> None:
    stage, tell = scene.stage, scene.tell
    times, size = 5, 100_000
    tell.chapter("The counters are right")
    reporters = (("n1", "source"), ("n2", "destination"))
    before = {node: _meters(stage, node, reporter) for node, reporter in reporters}
    back = stage.move(WEB, HOST, BYTES_PORT, times, size)
    tell.holds(f"web: {times} connections, {size} bytes there, twice as many back on each", back == 2 * times * size)
    wanted = dict(zip(COUNTERS, (times, times, times * size, 2 * times * size), strict=True))
    for node, reporter in reporters:

        def grown(node: str = node, reporter: str = reporter) -> dict[str, int] | None:
            now = _meters(stage, node, reporter)
            delta = {name: int(now[name] - before[node][name]) for name in COUNTERS}
            return delta if delta == wanted else None

        until(f"{node}: counters with both principals grow by {wanted}", grown)
        for name in COUNTERS:
            tell.holds(f"{node}: {name} +{wanted[name]}", True, f"reporter={reporter}")


def leaving(scene: Scene) -> None:
    stage, tell = scene.stage, scene.tell
    tell.chapter("Leaving is a label as well")
    stage.label("shop", f"{LABEL}-")
    tell.holds("no pod is in the mesh", not _enrolled(stage))
    with Capture(stage.lab, "n2") as capture:
        echoed = stage.ask(WEB, URL, scene.secret).out
    tell.holds("web reaches db directly again", echoed == scene.secret)
    direct = capture.shows(scene.secret.encode()) and 8080 in capture.ports_from(_addresses(stage, WEB))
    tell.holds("in clear, as before", direct)
    tell.holds("batch and the pod outside reach it too", scene.reaches(BATCH) and scene.reaches(OUTSIDE))
    tell.holds("no pod was restarted", scene.server_now().get("started") == scene.server["started"])
    tell.holds("web's connection through the mesh goes on", scene.open["web"].echo("and still here"))


CHAPTERS: Final[tuple[Callable[[Scene], None], ...]] = (
    without_the_mesh,
    joining,
    encrypted,
    identities,
    strict,
    policy,
    numbers,
    leaving,
)

_SHOP: Final = ["shop/batch", "shop/db", "shop/web"]


def _quote(tell: Telling, text: str) -> None:
    for line in text.rstrip().splitlines():
        tell.note(line)


def _is_cut(tell: Telling, whose: str, conversation: Conversation) -> None:
    """Call when the nodes have acknowledged the change."""
    began = monotonic()
    ended = conversation.next(CUT_S)
    cut = ended.startswith(("closed", "ended"))
    tell.holds(
        f"{whose} open connection is cut", cut, f"{(monotonic() - began) * 1000:.0f} ms after the acknowledgement"
    )


def _pods(stage: Stage) -> dict[str, dict[str, Any]]:
    return {f"{pod['namespace']}/{pod['name']}": pod for pod in stage.status()["pods"]}


def _enrolled(stage: Stage) -> list[str]:
    return sorted(name for name, pod in _pods(stage).items() if pod["mesh"] == "enrolled")


def _addresses(stage: Stage, pod: str) -> list[str]:
    return [str(ip) for ip in _pods(stage)[pod]["ips"]]


def _ready(stage: Stage, pod: str) -> bool:
    return bool(_pods(stage)[pod]["ready"])


def _logged(scene: Scene, node: str, words: tuple[str, ...]) -> str:
    lines = scene.stage.logs(node, "ztunnel").splitlines()
    return next((line for line in lines if all(word in line for word in words)), "")


def _meters(stage: Stage, node: str, reporter: str) -> dict[str, float]:
    """Traffic from web to db as this node reports it."""
    text = LabReach(stage.lab).ztunnel(node, "/metrics", STATS_PORT).text
    principals = {"source_principal": f"{SPIFFE}web", "destination_principal": f"{SPIFFE}db"}
    service = {"destination_service": "db.shop.svc.cluster.local", "connection_security_policy": "mutual_tls"}
    return traffic(text, {"reporter": reporter, "destination_workload": "db", **principals, **service})
