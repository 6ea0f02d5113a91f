"""A mesh out of a local file instead of a control plane, in the form of Istio's ztunnel (interop 2.10).

    workloads: [{uid, name, namespace, workloadIps, protocol: HBONE, services: {"namespace/hostname": {80: 8080}}}]
    services: [{name, namespace, hostname, vips: ["network/ip"], ports: {80: 8080}}]
    policies: [{name, namespace, scope: Namespace, action: Deny, rules: [[[{notDestinationPorts: [80]}]]]}]

Names are the config dump's. A file that has anything in it that we do not know, or twice, is refused whole.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any, Final

from ambient.errors import InvalidInput, Unavailable
from ambient.model.dumped import SERVICE_KEYS, WORKLOAD_KEYS, check_keys, read_ports, read_service, read_workload
from ambient.model.dumped_policies import read_policy
from ambient.model.fields import Fields
from ambient.model.workload import Workload
from ambient.xds.codec import Record, decode, encode, name_of
from ztunnel.config import Config

_POLICY_KEYS: Final = frozenset({"name", "namespace", "scope", "action", "rules", "dryRun"})


def read_local(text: str, where: str) -> tuple[Record, ...]:
    """The records of a local file; raises InvalidInput naming the place."""
    # Few have such a file, and everybody waits for what is imported at the start.
    import yaml

    try:
        raw = yaml.safe_load(text) or {}
    except yaml.YAMLError as error:
        raise InvalidInput("local discovery", where, f"not YAML: {' '.join(str(error).split())}") from None
    top = Fields(raw, where)
    check_keys(top, ("workloads", "services", "policies"))
    records: list[Record] = [_workload(fields) for fields in top.each("workloads")]
    for fields in top.each("services"):
        check_keys(fields, SERVICE_KEYS)
        records.append(read_service(fields))
    for fields in top.each("policies"):
        check_keys(fields, _POLICY_KEYS)
        records.append(read_policy(fields))
    twice = [name for (_, name), count in Counter((type(one), name_of(one)) for one in records).items() if count > 1]
    if twice:
        raise InvalidInput("local discovery", where, f"{twice[0]} is there twice")
    # What could not come over the wire may not come out of a file either.
    return tuple(_through_the_wire(record) for record in records)


def local_records(config: Config) -> tuple[Record, ...]:
    """What LOCAL_XDS holds, or the file at LOCAL_XDS_PATH. Raises InvalidInput, Unavailable."""
    if config.local_xds:
        return read_local(config.local_xds, "LOCAL_XDS")
    try:
        text = Path(config.local_xds_path).read_text()
    except (OSError, UnicodeError) as error:
        raise Unavailable("local discovery", config.local_xds_path, str(error)) from None
    return read_local(text, config.local_xds_path)


def _through_the_wire(record: Record) -> Record:
    resource = encode(record)
    return decode(resource.type_url, resource.name, resource.body)


def _workload(fields: Fields) -> Workload:
    check_keys(fields, WORKLOAD_KEYS)
    services = Fields(fields.mapping("services"), f"{fields.where}.services")
    # Istio's file may leave these two out; a name of its own makes a workload whole.
    raw: dict[str, Any] = {"protocol": "TCP", **fields.raw}
    raw.setdefault("uid", f"local//Pod/{raw.get('namespace', '')}/{raw.get('name', '')}")
    return read_workload(Fields(raw, fields.where), {str(key): read_ports(services, key) for key in services.raw})
