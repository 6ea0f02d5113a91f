"""The state of a lab as plain data (`status -o json`) and as a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

from ambient.errors import MeshError
from ambient.kube.objects import Node, Pod, Record, Records, RefusedObject, Service
from ambient.lab import cgroup
from ambient.lab.components import Component, components
from ambient.lab.lab import Lab
from ambient.lab.mesh import is_enrolled, wants_mesh
from ambient.lab.process import saved_mark
from ambient.lab.sync import control_get

_MEANING: Final = MappingProxyType({126: ": its command cannot be run", 127: ": its command was not found"})
"""Exit codes of a shell that could not begin."""


def status(lab: Lab) -> dict[str, Any]:
    """Everything, JSON-ready. Keys: lab, mesh, revision, supervisor, control, nodes, pods, services, refused."""
    # Processes first: a pod that starts meanwhile must not be shown running with what was known of it before.
    running = {pod.uid: _pids(lab.names.pod_cgroup(pod.node_name, pod.uid)) for pod in lab.records().of(Pod)}
    records = lab.records()
    parts = [_component(component) for component in components(lab.settings, records)]
    return {
        "lab": lab.settings.lab,
        "mesh": lab.settings.mesh,
        "revision": records.revision,
        "supervisor": {"pids": _pids(lab.names.cgroup("supervisor"))},
        "control": _control(lab, parts),
        "nodes": [_node(lab, node, parts, records) for node in records.of(Node)],
        "pods": [_pod(lab, pod, records, running.get(pod.uid, [])) for pod in records.of(Pod)],
        "services": [_service(service) for service in records.of(Service)],
        "conditions": _conditions(records),
        "refused": [_refused(refused) for refused in records.refused],
    }


def _component(component: Component) -> dict[str, Any]:
    mark = saved_mark(component.mark)
    return {
        "node": component.node,
        "name": component.name,
        "running": mark is not None,
        "pid": mark.pid if mark else None,
        "pids": _pids(component.group),
    }


def _pids(group: str) -> list[int]:
    mounted = cgroup.mount_point()
    return sorted(cgroup.pids(mounted / group)) if mounted else []


def _control(lab: Lab, parts: list[dict[str, Any]]) -> dict[str, Any] | None:
    part = next((part for part in parts if part["name"] == "control"), None)
    if part is None:
        return None
    try:
        sync = control_get(lab, "/sync")
    except MeshError as error:
        return {**part, "sync": None, "error": str(error)}
    return {**part, "sync": sync}


def _node(lab: Lab, node: Node, parts: list[dict[str, Any]], records: Records) -> dict[str, Any]:
    return {
        "name": node.name,
        "netns": lab.names.node(node.name),
        "addresses": [str(ip) for ip in node.addresses],
        "podCIDRs": list(node.pod_cidrs),
        "components": {
            part["name"]: {key: part[key] for key in ("running", "pid", "pids")} | _observed(records, part, node.name)
            for part in parts
            if part["node"] == node.name
        },
    }


def _observed(records: Records, part: dict[str, Any], node: str) -> dict[str, Any]:
    state = records.writers.get(f"{part['name']}-{node}")
    return {"observed": state.observed} if state is not None else {}


def _pod(lab: Lab, pod: Pod, records: Records, pids: list[int]) -> dict[str, Any]:
    raw = pod.raw.get("status") or {}
    containers = raw.get("containerStatuses") or []
    return {
        "namespace": pod.namespace,
        "name": pod.name,
        "uid": pod.uid,
        "node": pod.node_name,
        "phase": "Terminating" if pod.deleting else pod.phase or "Pending",
        "ready": pod.ready,
        "ips": [str(ip) for ip in pod.ips],
        "serviceAccount": pod.service_account,
        "mesh": mesh_state(pod, records),
        "restarts": sum(int(container.get("restartCount", 0)) for container in containers),
        "containers": containers,
        "message": raw.get("message", "") or why_not(containers),
        "netns": lab.names.node(pod.node_name) if pod.host_network else lab.names.pod(pod.namespace, pod.name),
        "pids": pids,
    }


def why_not(containers: Iterable[Mapping[str, Any]]) -> str:
    """Why the first container that does not run does not, and how it ended last; "" when there is none."""
    for container in containers:
        state = container.get("state", {})
        ended = state.get("terminated") or container.get("lastState", {}).get("terminated") or {}
        reason = (state.get("waiting") or state.get("terminated") or {}).get("reason", "")
        if ended and reason not in ("", "Completed"):
            code = ended.get("exitCode")
            return f"{reason}, exit code {code}{_MEANING.get(code or 0, '')}"
        if reason.startswith("StartError"):
            return str(reason)
    return ""


def mesh_state(pod: Pod, records: Records) -> str:
    """ "enrolled", "joining", "leaving" or "out"."""
    if wants_mesh(pod, records):
        return "enrolled" if is_enrolled(pod) else "joining"
    return "leaving" if is_enrolled(pod) else "out"


def _service(service: Service) -> dict[str, Any]:
    return {
        "namespace": service.namespace,
        "name": service.name,
        "ips": ["None"] if service.headless else [str(ip) for ip in service.cluster_ips],
        "ports": [f"{port.port}/{port.protocol}" for port in service.ports],
    }


def _conditions(records: Records) -> list[dict[str, Any]]:
    """Of everything but pods, whose conditions are their phase."""
    interesting: list[Record] = [record for record in records.by_key.values() if not isinstance(record, Pod)]
    return [
        {"object": record.key, "type": c.type, "status": c.status, "reason": c.reason, "message": c.message}
        for record in sorted(interesting, key=lambda r: r.key)
        for c in record.conditions
    ]


def _refused(refused: RefusedObject) -> dict[str, Any]:
    return {"object": refused.key, "error": str(refused.error), "lastGoodVersionStands": refused.stands}


def table(state: dict[str, Any]) -> str:
    """The same for people."""
    rows = [["NODE", "ADDRESS", "PODS", *(["KUBELET", "AGENT", "ZTUNNEL"] if state["mesh"] else ["KUBELET"])]]
    for node in state["nodes"]:
        cells = [node["name"], " ".join(node["addresses"]), " ".join(node["podCIDRs"])]
        for name in ("kubelet", "agent", "ztunnel") if state["mesh"] else ("kubelet",):
            part = node["components"].get(name, {})
            cells.append(f"pid {part['pid']}" if part.get("running") else "down")
        rows.append(cells)
    head = f"lab {state['lab']}, revision {state['revision']}"
    if state["control"]:
        control = state["control"]
        head += f", control {'pid ' + str(control['pid']) if control['running'] else 'down'}"
    pods = [["NAMESPACE", "POD", "NODE", "PHASE", "READY", "RESTARTS", "ADDRESSES", "MESH"]]
    pods += [
        [
            *(pod["namespace"], pod["name"], pod["node"], pod["phase"], "yes" if pod["ready"] else "no"),
            *(str(pod["restarts"]), " ".join(pod["ips"]), pod["mesh"]),
        ]
        for pod in state["pods"]
    ]
    stuck = [f"pod {pod['namespace']}/{pod['name']}: {pod['message']}" for pod in state["pods"] if pod.get("message")]
    services = [["NAMESPACE", "SERVICE", "ADDRESSES", "PORTS"]]
    services += [[s["namespace"], s["name"], " ".join(s["ips"]), " ".join(s["ports"])] for s in state["services"]]
    blocks = [head, *(_columns(block) for block in (rows, pods, services) if len(block) > 1)]
    blocks += ["\n".join(stuck)] if stuck else []
    blocks += [f"refused {r['object']}: {r['error']}" for r in state["refused"]]
    return "\n\n".join(blocks)


def _columns(rows: list[list[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )
