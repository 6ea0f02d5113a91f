"""`ambient explain SRC DST:PORT`: how the connection would go and who allows or denies it, and why.

Clients try every address family that both ends have, IPv6 first: each is explained in a section of its own.

Runs `route` on the view of the source's node and the judgement on the view of the destination's node: the same
functions on the same data as their ztunnels. Nothing is sent.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from typing import Any

from ambient.cli.dump import Dump
from ambient.cli.env import Env, Exit, Usage
from ambient.cli.gather import chosen, dump_of
from ambient.cli.judgement import Judgement, Views, judge
from ambient.cli.names import Source, Target, source, targets
from ambient.cli.table import output_option
from ambient.cli.table import show as show_table
from ambient.errors import Refused, Unavailable
from ambient.model.address import Endpoint, parse_endpoint, parse_ip
from ambient.model.balance import Target as Considered
from ambient.model.balance import port_of
from ambient.model.mesh import Mesh
from ambient.model.outcome import Forward, Hop, Passthrough, Plan, Refuse
from ambient.model.route import route
from ambient.model.workload import Workload


@dataclass(frozen=True, slots=True)
class Section:
    """What is said about one address family."""

    client: Source
    dialled: Target
    route: str
    judgements: tuple[Judgement, ...]
    passed_over: tuple[Considered, ...] = ()

    @property
    def allowed(self) -> bool:
        return bool(self.judgements) and all(judgement.allowed for judgement in self.judgements)

    def document(self) -> dict[str, Any]:
        return {
            "family": f"IPv{self.dialled.endpoint.ip.version}",
            "source": _source(self.client),
            "destination": {"asked": self.dialled.text, "address": str(self.dialled.endpoint)},
            "route": self.route,
            "allowed": self.allowed,
            "endpoints": [judgement.document() for judgement in self.judgements],
            "notChosen": [
                {"workload": _name(one.workload), "node": one.workload.node, "why": str(one.why)}
                for one in self.passed_over
            ],
        }


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SRC", help="NAMESPACE/POD or an address")
    parser.add_argument("destination", metavar="DST:PORT", help="service name, NAMESPACE/POD or address, with a port")
    output_option(parser)


def run(env: Env, args: argparse.Namespace) -> int:
    """0 if every family is allowed, 3 if one is denied or refused (also when only some endpoints deny it).

    The JSON is the first family's, with `allowed` for all of them and each of them under `families`.
    """
    reach = env.reach(args)
    dumps = {node: dump for node in chosen(reach, None) for dump in [_dump(env, reach, node)] if dump}
    if not dumps:
        raise Unavailable("no ztunnel answers", reach.label)
    meshes = {node: _mesh(dump) for node, dump in dumps.items()}
    views = Views(meshes, frozenset(node for node, dump in dumps.items() if not dump.only_waypoints))
    anywhere = next(iter(meshes))
    client = source(meshes[anywhere], args.source, dumps[anywhere].network)
    node = client.workload.node if client.workload and client.workload.node in meshes else anywhere
    view, strict = meshes[node], dumps[node].registry_only
    client = source(view, args.source, dumps[node].network)
    pairs = _pairs(client, targets(view, args.destination, client))
    sections = [_section(view, views, *pair, registry_only=strict) for pair in pairs]
    allowed = all(section.allowed for section in sections)
    if args.output == "json":
        documents = [section.document() for section in sections]
        show_table(env, "json", (), (), documents[0] | {"allowed": allowed, "families": documents})
    else:
        for number, section in enumerate(sections):
            if number:
                env.line()
            _tell(env, section)
    return Exit.OK if allowed else Exit.NEGATIVE


def _pairs(client: Source, dialled: tuple[Target, ...]) -> list[tuple[Source, Target]]:
    """Each family that both have, at least one; raises Usage for an address that cannot connect there, else Refused."""
    pairs = [(own, one) for one in dialled for own in [client.towards(one.endpoint.ip)] if own is not None]
    if not pairs:
        version = dialled[0].endpoint.ip.version
        why = f"{dialled[0].text} is IPv{version} only"
        if client.workload is None or "/" not in client.text:
            raise Usage(f"the source has no IPv{version} address", client.text, why)
        raise Refused(f"{client.text} has no IPv{version} address", "discovery", why)
    return pairs


def _section(view: Mesh, views: Views, client: Source, dialled: Target, *, registry_only: bool) -> Section:
    if not client.captured or client.workload is None:
        judgements, plan = _uncaptured(view, views, client, dialled)
        return Section(client, dialled, plan, tuple(judgements))
    routed = route(
        view, client.workload, dialled.endpoint, network=client.workload.network, registry_only=registry_only
    )
    judgements, plan = _judgements(view, views, client, dialled, routed.plan)
    return Section(client, dialled, plan, tuple(judgements), routed.passed_over)


def _dump(env: Env, reach: Any, node: str) -> Dump | None:
    try:
        return dump_of(reach, node)
    except Unavailable as error:
        env.complain(f"ambient explain: {error}; going by the other nodes")
        return None


def _mesh(dump: Dump) -> Mesh:
    mesh = Mesh()
    mesh.apply([*dump.workloads, *dump.services, *dump.policies])
    return mesh


def _judgements(view: Mesh, views: Views, client: Source, dialled: Target, plan: Plan) -> tuple[list[Judgement], str]:
    """The judgement at each possible endpoint, and the route in words."""
    match plan:
        case Refuse():
            return [], f"refused at the source: {plan.reason}" + (f" ({plan.detail})" if plan.detail else "")
        case Passthrough():
            hop = Hop(str(dialled.endpoint.ip), dialled.endpoint.port)
            return [judge(view, views, client, hop, dialled.endpoint)], f"passed through in clear: {plan.why}"
        case Forward():
            judged = [judge(view, views, client, hop, _final(hop)) for hop in plan.hops]
            return judged, "mutual TLS through the mesh" if plan.hops[0].authority else "in clear to an endpoint"


def _uncaptured(view: Mesh, views: Views, client: Source, dialled: Target) -> tuple[list[Judgement], str]:
    """The same for a client that is not in the mesh: the cluster's own load balancing takes it anywhere."""
    finals = _endpoints(view, dialled)
    plain = [judge(view, views, client, Hop(str(final.ip), final.port), final) for final in finals]
    if not plain:
        return [], "the service has no endpoint for this port"
    return plain, "in clear: the source is not in the mesh"


def _final(hop: Hop) -> Endpoint | None:
    """Where the application is asked for: the authority of the tunnel, else the hop itself; None: it is not known."""
    if not hop.ip or hop.inner:
        return None
    if hop.authority and not hop.through_waypoint:
        return parse_endpoint(hop.authority)
    return Endpoint(parse_ip(hop.ip), hop.port)


def _endpoints(view: Mesh, dialled: Target) -> list[Endpoint]:
    """What the cluster's own load balancing would choose from."""
    if dialled.service is None:
        return [dialled.endpoint]
    found = []
    for endpoint in view.endpoints(dialled.service.key):
        port = port_of(dialled.service, endpoint, dialled.endpoint.port)
        addresses = [ip for ip in endpoint.workload.addresses if ip.version == dialled.endpoint.ip.version]
        if port and addresses:
            found.append(Endpoint(addresses[0], port))
    return found


def _source(client: Source) -> dict[str, Any]:
    workload = client.workload
    return {
        "asked": client.text,
        "address": str(client.ip),
        "identity": str(workload.identity) if workload and client.captured else None,
        "node": workload.node if workload else None,
        "inMesh": client.captured,
    }


def _tell(env: Env, section: Section) -> None:
    who = _source(section.client)
    env.line(f"from     {section.client.text}  {who['address']}  {who['identity'] or 'no identity: not in the mesh'}")
    env.line(f"to       {section.dialled.text}  {section.dialled.endpoint}")
    env.line(f"route    {section.route}")
    for judgement in section.judgements:
        env.line(f"         via {judgement.way}")
        env.line(f"verdict  {judgement.text}")
    if not section.judgements:
        env.line("verdict  denied: it does not leave the source")
    for one in section.passed_over:
        where = f" on {one.workload.node}" if one.workload.node else ""
        env.line(f"not      {_name(one.workload)}{where}: {one.why}")


def _name(workload: Workload) -> str:
    return f"{workload.namespace}/{workload.name or workload.uid}"
