"""What the destination's node says to a connection that arrives over one hop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ambient.cli.names import Source
from ambient.model.address import ZTUNNEL_PORTS, Endpoint, parse_ip
from ambient.model.decide import past_waypoint
from ambient.model.explain import explain
from ambient.model.mesh import Mesh
from ambient.model.nearest import Difference
from ambient.model.outcome import Allowed, Connection, Denied, Hop, Reason
from ambient.model.waypoints import open_ports, waypoint_principals
from ambient.model.workload import TunnelProtocol, Workload


@dataclass(frozen=True, slots=True)
class Judgement:
    """`rule` is its number in the resource, 0 when no single rule decided; `reason` says who judges if not we."""

    hop: Hop
    final: Endpoint | None
    workload: Workload | None
    allowed: bool
    reason: str
    text: str
    policy: str = ""
    rule: int = 0
    misses: tuple[Difference, ...] = ()

    @property
    def way(self) -> str:
        owner = (
            f"{self.workload.namespace}/{self.workload.name} on {self.workload.node}" if self.workload else "outside"
        )
        tunnel = f"CONNECT {self.hop.authority}" if self.hop.authority else "plain TCP"
        twice = ", a second tunnel inside" if self.hop.inner else ""
        return f"{owner}  {self.address}, {tunnel}{twice}"

    @property
    def address(self) -> str:
        """Where the hop is: its address, or the name that the node will resolve."""
        hop = self.hop
        return str(Endpoint(parse_ip(hop.ip), hop.port)) if hop.ip else f"{hop.hostname}:{hop.port}"

    def document(self) -> dict[str, Any]:
        return {
            "hop": self.address,
            "authority": self.hop.authority or None,
            "expected": list(self.hop.expected),
            "inner": list(self.hop.inner),
            "workload": f"{self.workload.namespace}/{self.workload.name}" if self.workload else None,
            "node": self.workload.node if self.workload else None,
            "allowed": self.allowed,
            "reason": self.reason,
            "policy": self.policy or None,
            "rule": self.rule or None,
            "misses": [asdict(miss) for miss in self.misses],
            "text": self.text,
        }


@dataclass(frozen=True, slots=True)
class Views:
    """The mesh as each node knows it. `lax`: nodes where policies alone say who may go past a waypoint."""

    meshes: Mapping[str, Mesh]
    lax: frozenset[str] = frozenset()


def judge(view: Mesh, views: Views, client: Source, hop: Hop, final: Endpoint | None) -> Judgement:
    """Judge at the destination's own node; `view` stands in where that node does not answer. `final`: where the
    application is asked for; None where only the node itself will find out, by resolving a name."""
    network = client.workload.network if client.workload else ""
    if hop.inner:
        text = "the other network decides: its rules are not known here"
        return Judgement(hop, final, None, True, "other-network-decides", text)
    if final is None:
        text = f"allowed: {hop.hostname} is known by name only, nobody here judges"
        return Judgement(hop, final, None, True, "by-name", text)
    workload = view.workload_by_address(network, final.ip)
    if hop.through_waypoint:
        text = "the waypoint decides: its rules are not known here"
        return Judgement(hop, final, workload, True, "waypoint-decides", text)
    if workload is None:
        return Judgement(
            hop, final, None, True, "outside", "allowed: the destination is not in the mesh, nobody judges"
        )
    if workload.tunnel_protocol is not TunnelProtocol.HBONE:
        text = f"allowed: {workload.namespace}/{workload.name} is not in the mesh, nobody judges"
        return Judgement(hop, final, workload, True, "not-in-the-mesh", text)
    if client.workload and not hop.authority and final.ip in client.workload.addresses:
        text = "allowed: it does not leave the pod, nobody judges"
        return Judgement(hop, final, workload, True, "itself", text)
    if final.port in ZTUNNEL_PORTS:
        text = f"denied: {final.port} is a port of ztunnel"
        return Judgement(hop, final, workload, False, "illegal-port", text)
    there = views.meshes.get(workload.node, view)
    known = there.workload(workload.uid) or workload
    peer = client.workload.identity if hop.authority and client.workload else None
    # The hop may be of another family than what was dialled; the peer that is judged is whom the hop comes from.
    peer_ip = (client.towards(parse_ip(hop.ip)) or client).ip
    connection = Connection(peer_ip, final.ip, final.port, peer)
    wanted = () if workload.node in views.lax else waypoint_principals(there, known)
    if past_waypoint(wanted, open_ports(there, known), connection):
        text = f"denied: only its waypoint may connect ({', '.join(sorted(wanted))})"
        return Judgement(hop, final, known, False, Reason.NOT_ITS_WAYPOINT, text)
    selected = there.policies_of(known)
    explanation = explain(selected.policies, selected.missing, connection)
    match explanation.verdict:
        case Allowed():
            allowed = True
        case Denied():
            allowed = False
    return Judgement(
        hop,
        final,
        known,
        allowed,
        explanation.verdict.reason,
        explanation.text
        + "".join(f"; {one.policy}, a dry run, {one.effect.replace('-', ' ')}" for one in explanation.dry_run),
        explanation.policy,
        explanation.rule,
        explanation.misses,
    )
