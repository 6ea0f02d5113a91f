"""Tables of derivation: objects in, what ztunnels and people are told of them out; each row in a YAML file.

A row has `name`, `in` (objects; apiVersion, and what every pod has, may be left out), perhaps `settings` and `refused`
(keys of objects of `in` that count as stored but invalid), and `out`: by section and name the fields that the row is
about. In a section that is given, no other names may be there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import yaml

from ambient.control.derive import Derived, derive
from ambient.control.derive_world import DeriveSettings
from ambient.errors import InvalidInput
from ambient.kube.objects import Records, RefusedObject, parse_object, resources
from ambient.kube.selectors import parse_selectors
from ambient.model.policy import Authorization
from ambient.model.workload import GatewayAddress, Port, Service, Workload

TABLES: Final = Path(__file__).parents[1] / "golden" / "derivation"


@dataclass(frozen=True)
class Row:
    """One row of a table."""

    name: str
    given: tuple[Mapping[str, Any], ...]
    out: Mapping[str, Any]
    settings: DeriveSettings
    refused: frozenset[str]

    def check(self) -> None:
        """Derive and compare."""
        found = shown(derive(self.records(), self.settings))
        for section, names in self.out.items():
            expected = {str(name): fields or {} for name, fields in (names or {}).items()}
            assert set(found[section]) == set(expected), section
            for name, fields in expected.items():
                said = found[section][name]
                if isinstance(fields, dict):
                    assert {key: said[key] for key in fields} == fields, name
                else:
                    assert said == fields, name

    def records(self) -> Records:
        by_key = {}
        refused = []
        for raw in self.given:
            full = complete(raw)
            metadata = full["metadata"]
            key = f"{full['kind']}/{metadata.get('namespace', 'default')}/{metadata['name']}"
            if key in self.refused:
                kind, namespace, name = key.split("/")
                error = InvalidInput(key, "spec.x", "unknown field")
                refused.append(RefusedObject(kind, namespace, name, error, full))
                continue
            record = parse_object(full, "table")
            by_key[record.key] = record
        return Records(1, by_key, tuple(refused))


def table(name: str) -> list[Row]:
    """The rows of `<name>.yaml`."""
    rows = yaml.safe_load((TABLES / f"{name}.yaml").read_text())
    return [
        Row(
            row["name"],
            tuple(row["in"]),
            row["out"],
            _settings(row.get("settings", {})),
            frozenset(row.get("refused", ())),
        )
        for row in rows
    ]


def _settings(given: Mapping[str, Any]) -> DeriveSettings:
    selectors = parse_selectors(given.get("discovery_selectors", ""))
    return DeriveSettings(**{**given, "discovery_selectors": selectors})


def complete(raw: Mapping[str, Any]) -> dict[str, Any]:
    """The object with what every one of its kind has."""
    full = {"apiVersion": resources(raw["kind"])[0].group_version, **raw}
    if raw["kind"] == "Pod":
        full["spec"] = {"containers": [{"name": "main"}], "nodeName": "n1", **raw.get("spec", {})}
        full["status"] = {"phase": "Running", "ready": True, "podIP": "10.0.0.1", **raw.get("status", {})}
    return full


def shown(derived: Derived) -> dict[str, dict[str, Any]]:
    """By section and name, everything in short text."""
    return {
        "workloads": {name: _workload(one) for name, one in derived.workloads.items()},
        "services": {name: _service(one) for name, one in derived.services.items()},
        "policies": {name: _policy(one) for name, one in derived.policies.items()},
        "conditions": {
            key: [[one.type, one.status, one.reason, one.message] for one in conditions]
            for key, conditions in derived.conditions.items()
            if conditions
        },
        "allocations": {key: [f"{host}={ip}" for host, ip in pairs] for key, pairs in derived.allocations.items()},
    }


def _workload(one: Workload) -> dict[str, Any]:
    return {
        "addresses": [str(ip) for ip in one.addresses],
        "hostname": one.hostname,
        "network": one.network,
        "protocol": one.tunnel_protocol.name,
        "native": one.native_tunnel,
        "trust_domain": one.trust_domain,
        "account": one.service_account,
        "waypoint": _gateway(one.waypoint),
        "gateway": _gateway(one.network_gateway),
        "node": one.node,
        "canonical": f"{one.canonical_name} {one.canonical_revision}",
        "owner": one.workload_name,
        "type": one.workload_type.name,
        "policies": list(one.authorization_policies),
        "status": one.status.name,
        "cluster": one.cluster_id,
        "services": {key: _ports(ports) for key, ports in one.services.items()},
        "tunnel": f"{one.application_tunnel.protocol.name}/{one.application_tunnel.port}"
        if one.application_tunnel
        else "",
        "locality": f"{one.locality.region}/{one.locality.zone}/{one.locality.subzone}",
        "mode": one.network_mode.name,
        "capacity": one.capacity,
    }


def _service(one: Service) -> dict[str, Any]:
    balancing = one.load_balancing
    return {
        "name": one.name,
        "addresses": [str(vip) for vip in one.addresses],
        "ports": _ports(one.ports, protocols=True),
        "sans": list(one.subject_alt_names),
        "waypoint": _gateway(one.waypoint),
        "weighted": [f"{_gateway(share.destination)} {share.weight}" for share in one.weighted_waypoints],
        "balancing": " ".join(
            (balancing.mode.name, *(scope.name for scope in balancing.routing_preference), balancing.health_policy.name)
        ),
        "families": one.ip_families.name,
        "canonical": one.canonical,
    }


def _policy(one: Authorization) -> dict[str, Any]:
    rules = [[[_match(match) for match in clause] for clause in rule] for rule in one.rules]
    return {"scope": one.scope.name, "action": one.action.name, "dry_run": one.dry_run, "rules": rules}


def _match(match: Any) -> str:
    """Its fields that say something, as "name=a,b"."""
    fields = ((name, getattr(match, name)) for name in match.__dataclass_fields__)
    return " ".join(f"{name}={','.join(_value(value) for value in values)}" for name, values in fields if values)


def _value(value: Any) -> str:
    if hasattr(value, "kind"):
        return {1: value.value, 2: f"{value.value}*", 3: f"*{value.value}", 4: "*"}[value.kind]
    if hasattr(value, "service_account"):
        return f"{value.namespace}/{value.service_account}"
    return str(value)


def _ports(ports: tuple[Port, ...], *, protocols: bool = False) -> str:
    return " ".join(
        f"{port.service_port}->{port.target_port}" + (f":{port.app_protocol.name}" if protocols else "")
        for port in ports
    )


def _gateway(gateway: GatewayAddress | None) -> str:
    return "" if gateway is None else f"{gateway.destination}:{gateway.hbone_port}"
