"""A ztunnel's `/config_dump` read back into the model, so that the CLI decides with the same functions as ztunnel.

The border for this JSON: a field that is not what Istio's ztunnel writes is InvalidInput with its place. Keys we do
not use are ignored, since the dump belongs to another program and may be of a newer version.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ambient.errors import InvalidInput
from ambient.model.dumped import read_ports, read_service, read_workload
from ambient.model.dumped_policies import read_policy
from ambient.model.fields import Fields
from ambient.model.policy import Authorization
from ambient.model.workload import Port, Service, Workload

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Dump:
    """One node's view. The `raw_*` lists are the entries as they came, for `-o json`."""

    node: str
    workloads: tuple[Workload, ...]
    services: tuple[Service, ...]
    policies: tuple[Authorization, ...]
    raw: Json

    def entries(self, key: str) -> list[Json]:
        """The list under a top-level key (an object there counts as the list of its values, as istioctl has it)."""
        return _entries(self.raw, key, self.node)

    @property
    def registry_only(self) -> bool:
        """The node refuses what is in nobody's registry (Istio's ztunnel does not know that, nor say so)."""
        config = Fields(self.raw, f"config dump of {self.node}").nested("config")
        return config is not None and config.boolean("registryOnly")

    @property
    def only_waypoints(self) -> bool:
        """The node keeps everybody but its waypoint from a pod; Istio's ztunnel, which says nothing of it, does not."""
        config = Fields(self.raw, f"config dump of {self.node}").nested("config")
        return config is None or config.boolean("onlyWaypoints")

    @property
    def workers(self) -> str:
        """What the ztunnel's workers run, in its own words; "" when it does not say."""
        version = Fields(self.raw, f"config dump of {self.node}").nested("version")
        return "" if version is None else version.text("workers", "")

    @property
    def network(self) -> str:
        """The network that the node is on."""
        config = Fields(self.raw, f"config dump of {self.node}").nested("config")
        return "" if config is None else config.text("network", "")

    @property
    def states(self) -> Mapping[str, Json]:
        """Pod uid -> {state, info, connections}."""
        return Fields(self.raw, f"config dump of {self.node}").mapping("workloadState")


def parse_dump(text: str | bytes, node: str) -> Dump:
    """Read the text of a dump; raises InvalidInput."""
    where = f"config dump of {node}"
    try:
        raw = json.loads(text)
    except ValueError as error:
        raise InvalidInput("not JSON", where, str(error)) from None
    if not isinstance(raw, dict):
        raise InvalidInput("not a config dump", where, "expected an object")
    services = [Fields(entry, f"{where}: services[{n}]") for n, entry in enumerate(_entries(raw, "services", node))]
    ports = _ports_by_workload(services)
    workloads = (
        read_workload(Fields(entry, f"{where}: workloads[{n}]"), ports.get(str(entry.get("uid")), {}))
        for n, entry in enumerate(_entries(raw, "workloads", node))
    )
    policies = (
        read_policy(Fields(entry, f"{where}: policies[{n}]")) for n, entry in enumerate(_entries(raw, "policies", node))
    )
    return Dump(node, tuple(workloads), tuple(read_service(entry) for entry in services), tuple(policies), raw)


def _entries(raw: Json, key: str, node: str) -> list[Json]:
    value = raw.get(key) or []
    entries = list(value.values()) if isinstance(value, dict) else value
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise InvalidInput("not a config dump", f"config dump of {node}: {key}", "expected a list of objects")
    return entries


def _ports_by_workload(services: Iterable[Fields]) -> dict[str, dict[str, tuple[Port, ...]]]:
    """Workload uid -> service key -> ports: the dump keeps them with the service's endpoints."""
    found: dict[str, dict[str, tuple[Port, ...]]] = {}
    for service in services:
        key = f"{service.text('namespace')}/{service.text('hostname')}"
        endpoints = service.mapping("endpoints")
        for uid in endpoints:
            endpoint = Fields(endpoints[uid], f"{service.where}.endpoints.{uid}")
            found.setdefault(endpoint.text("workloadUid", uid), {})[key] = read_ports(endpoint, "port")
    return found
