from __future__ import annotations

import json
from typing import Any

import pytest

from ambient.agent.cni_request import Answer, PodName, Request, encode_answer, parse_request
from ambient.errors import InvalidInput, MeshError
from ambient.model.address import parse_ip
from tests.support import cni


def fields(**changed: Any) -> tuple[bytes, ...]:
    given = {
        "command": "ADD",
        "container": "c1",
        "netns": "/run/netns/x",
        "interface": "eth0",
        "arguments": cni.arguments("shop", "web", "u1"),
        "configuration": cni.configuration("/s", cni.result("10.1.0.2", "fd00::2"), timeoutSeconds=20),
        **changed,
    }
    return tuple(value if isinstance(value, bytes) else value.encode() for value in given.values())


def previous(**result: Any) -> bytes:
    return json.dumps({"prevResult": {**cni.result("10.1.0.2"), **result}}).encode()


def test_a_call_is_read_whole() -> None:
    assert parse_request(fields()) == Request(
        command="ADD",
        container="c1",
        netns="/run/netns/x",
        interface="eth0",
        pod=PodName("shop", "web", "u1"),
        addresses=(parse_ip("10.1.0.2"), parse_ip("fd00::2")),
        timeout_s=20.0,
    )


def test_a_container_that_is_not_kubernetes_has_no_pod() -> None:
    assert parse_request(fields(arguments="IgnoreUnknown=1")).pod is None


def test_addresses_of_other_interfaces_are_not_the_pods() -> None:
    result = cni.result("10.1.0.2")
    result["interfaces"].append({"name": "net1", "sandbox": "/run/netns/x"})
    result["ips"].append({"address": "10.9.0.2/24", "interface": 3})
    result["ips"].append({"address": "10.9.0.1/24", "interface": 0})
    assert parse_request(fields(configuration=json.dumps({"prevResult": result}))).addresses == (parse_ip("10.1.0.2"),)


def test_an_address_without_interface_is_the_pods() -> None:
    ips = [{"address": "10.1.0.9/32"}]
    assert parse_request(fields(configuration=previous(ips=ips))).addresses == (parse_ip("10.1.0.9"),)


def test_a_removal_needs_neither_namespace_nor_result() -> None:
    assert parse_request(fields(command="DEL", netns="", configuration="{}")).addresses == ()


BAD: dict[str, dict[str, Any]] = {
    "CNI_COMMAND": {"command": "VERSION"},
    "CNI_CONTAINERID": {"container": ""},
    "CNI_NETNS and": {"netns": ""},
    "CNI_IFNAME are": {"interface": ""},
    "CNI_NETNS: is not UTF-8": {"netns": b"\xff"},
    "has control characters": {"interface": "eth0\n"},
    "is not JSON": {"configuration": "{"},
    "is not JSON: nested": {"configuration": "[" * 100000},
    "is not an object": {"configuration": "[]"},
    "only one of": {"arguments": "K8S_POD_NAMESPACE=shop"},
    "only one of the other": {"arguments": "K8S_POD_NAME=web"},
    "is there twice": {"arguments": "K8S_POD_NAMESPACE=shop;K8S_POD_NAME=a;K8S_POD_NAMESPACE=kube-system"},
    "is no uid": {"arguments": "K8S_POD_NAMESPACE=a;K8S_POD_NAME=b;K8S_POD_UID=../../x"},
    "prevResult: is not an object": {"configuration": '{"prevResult": []}'},
    "prevResult.ips: is not a list": {"configuration": previous(ips={})},
    "has no address": {"configuration": previous(ips=[{}])},
    "is no list of interfaces": {"configuration": previous(interfaces="eth0")},
    "interface 9 is not": {"configuration": previous(ips=[{"address": "10.1.0.2/24", "interface": 9}])},
    "interface -1 is not": {"configuration": previous(ips=[{"address": "10.1.0.2/24", "interface": -1}])},
    "interface True": {"configuration": previous(ips=[{"address": "10.1.0.2/24", "interface": True}])},
    "an entry is not an object": {
        "configuration": previous(interfaces=[1], ips=[{"address": "10.1.0.2/24", "interface": 0}])
    },
    "no address at all": {"configuration": previous(ips=[{"address": "ten/24"}])},
    "timeoutSeconds": {"configuration": '{"ambient": {"timeoutSeconds": 0}}'},
    "timeoutSeconds text": {"configuration": '{"ambient": {"timeoutSeconds": "9"}}'},
}


@pytest.mark.parametrize("what", BAD)
def test_what_cannot_be_understood_is_refused(what: str) -> None:
    with pytest.raises(InvalidInput) as error:
        parse_request(fields(**BAD[what]))
    words = {
        "only one of the other": "only one of",
        "is not JSON: nested": "is not JSON",
        "is no list of interfaces": "prevResult.interfaces: is not a list",
        "no address at all": "ten",
        "timeoutSeconds text": "timeoutSeconds",
    }.get(what, what)
    assert words in str(error.value)


def test_a_frame_of_other_length_is_refused() -> None:
    with pytest.raises(MeshError, match="5 fields"):
        parse_request(fields()[:5])


def test_an_answer_is_bounded_and_plain() -> None:
    framed = encode_answer(Answer(11, "ä" + "x" * 9000))
    assert framed[:8] == (11).to_bytes(4, "big") + (4000).to_bytes(4, "big")
    assert framed[8:10] == b"?x"
