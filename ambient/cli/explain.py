"""`ambient explain SRC DST:PORT`: how the connection would go and who allows or denies it, and why.

Runs `route` on the view of the source's node and the judgement on the view of the destination's node: the same
functions on the same data as their ztunnels. Nothing is sent.
"""

from __future__ import annotations

import argparse
from typing import Any

from ambient.cli.dump import Dump
from ambient.cli.env import Env, Exit
from ambient.cli.gather import chosen, dump_of
from ambient.cli.judgement import Judgement, judge
from ambient.cli.names import Source, Target, source, target
from ambient.cli.table import output_option
from ambient.cli.table import show as show_table
from ambient.errors import Unavailable
from ambient.model.address import Endpoint, parse_endpoint, parse_ip
from ambient.model.mesh import Mesh
from ambient.model.outcome import Forward, Hop, Passthrough, Refuse
from ambient.model.route import route


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SRC", help="NAMESPACE/POD or an address")
    parser.add_argument("destination", metavar="DST:PORT", help="service name, NAMESPACE/POD or address, with a port")
    output_option(parser)


def run(env: Env, args: argparse.Namespace) -> int:
    """0 if the connection is allowed, 3 if it is denied or refused (also when only some endpoints deny it)."""
    reach = env.reach(args.name)
    views = {node: _mesh(dump) for node in chosen(reach, None) for dump in [_dump(env, reach, node)] if dump}
    if not views:
        raise Unavailable("no ztunnel answers", reach.label)
    anywhere = next(iter(views.values()))
    client = source(anywhere, args.source)
    view = views.get(client.workload.node, anywhere) if client.workload else anywhere
    client = source(view, args.source)
    dialled = target(view, args.destination, client)
    judgements, plan = _judgements(view, views, client, dialled)
    allowed = bool(judgements) and all(judgement.allowed for judgement in judgements)
    document: dict[str, Any] = {
        "source": _source(client),
        "destination": {"asked": dialled.text, "address": str(dialled.endpoint)},
        "route": plan,
        "allowed": allowed,
        "endpoints": [judgement.document() for judgement in judgements],
    }
    if args.output == "json":
        show_table(env, "json", (), (), document)
    else:
        _tell(env, client, dialled, plan, judgements)
    return Exit.OK if allowed else Exit.NEGATIVE


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


def _judgements(view: Mesh, views: dict[str, Mesh], client: Source, dialled: Target) -> tuple[list[Judgement], str]:
    """The judgement at each possible endpoint, and the route in words."""
    if client.captured and client.workload is not None:
        plan = route(view, client.workload, dialled.endpoint, network=client.workload.network).plan
        match plan:
            case Refuse():
                return [], f"refused at the source: {plan.reason}" + (f" ({plan.detail})" if plan.detail else "")
            case Passthrough():
                hop = Hop(str(dialled.endpoint.ip), dialled.endpoint.port)
                return [judge(view, views, client, hop, dialled.endpoint)], f"passed through in clear: {plan.why}"
            case Forward():
                judged = [judge(view, views, client, hop, _final(hop)) for hop in plan.hops]
                return judged, "mutual TLS through the mesh" if plan.hops[0].authority else "in clear to an endpoint"
    finals = _endpoints(view, dialled)
    plain = [judge(view, views, client, Hop(str(final.ip), final.port), final) for final in finals]
    if not plain:
        return [], "the service has no endpoint for this port"
    return plain, "in clear: the source is not in the mesh"


def _final(hop: Hop) -> Endpoint:
    """Where the application is asked for: the authority of the tunnel, else the hop itself."""
    if hop.authority and not hop.through_waypoint:
        return parse_endpoint(hop.authority)
    return Endpoint(parse_ip(hop.ip), hop.port)


def _endpoints(view: Mesh, dialled: Target) -> list[Endpoint]:
    """What the cluster's own load balancing would choose from."""
    if dialled.service is None:
        return [dialled.endpoint]
    found = []
    for endpoint in view.endpoints(dialled.service.key):
        for port in endpoint.ports:
            addresses = [ip for ip in endpoint.workload.addresses if ip.version == dialled.endpoint.ip.version]
            if port.service_port == dialled.endpoint.port and addresses:
                found.append(Endpoint(addresses[0], port.target_port))
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


def _tell(env: Env, client: Source, dialled: Target, plan: str, judgements: list[Judgement]) -> None:
    who = _source(client)
    env.line(f"from     {client.text}  {who['address']}  {who['identity'] or 'no identity: not in the mesh'}")
    env.line(f"to       {dialled.text}  {dialled.endpoint}")
    env.line(f"route    {plan}")
    for judgement in judgements:
        env.line(f"         via {judgement.way}")
        env.line(f"verdict  {judgement.text}")
    if not judgements:
        env.line("verdict  denied: it does not leave the source")
