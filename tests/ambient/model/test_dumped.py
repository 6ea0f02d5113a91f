"""What Istio's ztunnel writes of workloads and services is read back; keys of files that people write are checked."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ambient.errors import InvalidInput
from ambient.model.address import parse_ip
from ambient.model.dumped import SERVICE_KEYS, WORKLOAD_KEYS, check_keys, read_ports, read_service, read_workload
from ambient.model.fields import Fields
from ambient.model.workload import Port, TunnelProtocol

GOLDEN = Path(__file__).parents[2] / "golden" / "ztunnel-config_dump-n1.json"


def test_every_key_of_a_real_dump_is_known_and_read() -> None:
    dump = json.loads(GOLDEN.read_text())
    for number, raw in enumerate(dump["workloads"]):
        fields = Fields(raw, f"workloads[{number}]")
        check_keys(fields, WORKLOAD_KEYS)
        found = read_workload(fields, {})
        assert [str(ip) for ip in found.addresses] == raw["workloadIps"]
        assert (found.tunnel_protocol is TunnelProtocol.HBONE) == (raw["protocol"] == "HBONE")
    for number, raw in enumerate(dump["services"]):
        fields = Fields(raw, f"services[{number}]")
        check_keys(fields, SERVICE_KEYS)
        assert read_service(fields).key == f"{raw['namespace']}/{raw['hostname']}"


def test_an_unknown_key_is_named_with_its_place() -> None:
    with pytest.raises(InvalidInput, match=r"unknown field: here: podIps"):
        check_keys(Fields({"name": "a", "podIps": []}, "here"), WORKLOAD_KEYS)


@pytest.mark.parametrize(
    "raw",
    [
        {"uid": "u", "name": "a", "namespace": "n", "protocol": "LEGACY"},
        {"uid": "u", "name": "a", "namespace": "n", "protocol": "TCP", "workloadIps": ["10.0.0"]},
        {"uid": "u", "name": "a", "namespace": "n", "protocol": "TCP", "nativeTunnel": "yes"},
        {"uid": "u", "name": "a", "namespace": "n", "protocol": "TCP", "networkMode": "Other"},
        {"name": "a", "namespace": "n", "protocol": "TCP"},
    ],
)
def test_a_field_that_is_not_what_it_should_be_is_refused(raw: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        read_workload(Fields(raw, "here"), {})


def test_port_maps_are_numbers_to_numbers() -> None:
    assert read_ports(Fields({"ports": {"443": 8443, "80": 8080}}, "here"), "ports") == (
        Port(80, 8080),
        Port(443, 8443),
    )
    with pytest.raises(InvalidInput, match="port map"):
        read_ports(Fields({"ports": {"http": 80}}, "here"), "ports")
    assert (
        parse_ip("10.0.0.1")
        == read_service(Fields({"name": "s", "namespace": "n", "hostname": "h", "vips": ["net/10.0.0.1"]}, "here"))
        .addresses[0]
        .ip
    )
