"""Objects and command lines that break one rule each, given to `ambient` as users give them, on a mesh that runs.

The rows of the kinds are those of the parser's own tests: here one `lab apply` of them all must refuse every one by
document, field and reason, and change nothing.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from tests.ambient.kube import (
    test_entries,
    test_gateways,
    test_grpc_routes,
    test_httproutes,
    test_pods,
    test_security,
    test_services,
    test_slices,
    test_stream_routes,
    test_traffic,
    test_virtual_services,
)
from tests.hostile.conftest import Note
from tests.support.arena import Arena
from tests.support.journey import FAR, WEB
from tests.support.lab import SLEEP, object_yaml, pod_yaml
from tests.support.refusals import REMOVE, Bad, changed, field

pytestmark = pytest.mark.usefixtures("bystander", "unchanged")
RULES: list[tuple[str, Mapping[str, Any], Bad]] = [
    *(("Pod", test_pods.POD, bad) for bad in test_pods.RULES),
    *(("Service", test_services.SERVICE, bad) for bad in test_services.RULES),
    *(("AuthorizationPolicy", test_security.POLICY, bad) for bad in test_security.RULES),
    *(("EndpointSlice", test_slices.SLICE, bad) for bad in test_slices.RULES),
    *(("ServiceEntry", test_entries.ENTRY, bad) for bad in test_entries.ENTRY_RULES),
    *(("ServiceEntry", test_entries.DYNAMIC, bad) for bad in test_entries.DYNAMIC_RULES),
    *(("WorkloadEntry", test_entries.WORKLOAD, bad) for bad in test_entries.WORKLOAD_RULES),
    *(("WorkloadGroup", test_entries.GROUP, bad) for bad in test_entries.GROUP_RULES),
    *(("Gateway", test_gateways.GATEWAY, bad) for bad in test_gateways.RULES),
    *(("GatewayClass", test_gateways.CLASS, bad) for bad in test_gateways.CLASS_RULES),
    *(("DestinationRule", test_traffic.RULE, bad) for bad in test_traffic.RULES),
    *(("RequestAuthentication", test_traffic.TOKENS, bad) for bad in test_traffic.TOKEN_RULES),
    *(("HTTPRoute", test_httproutes.ROUTE, bad) for bad in test_httproutes.RULES),
    *(("GRPCRoute", test_grpc_routes.ROUTE, bad) for bad in test_grpc_routes.RULES),
    *((base["kind"], base, bad) for base, bad in test_stream_routes.RULES),
    *(("VirtualService", test_virtual_services.VIRTUAL, bad) for bad in test_virtual_services.RULES),
]
META = [
    ("no kind", {"kind": REMOVE}, "kind: is required"),
    ("an unknown kind", {"kind": "EnvoyFilter"}, "'EnvoyFilter' is not supported"),
    ("an unknown version", {"apiVersion": "v2"}, "'v2' does not have Pod"),
    ("no metadata", {"metadata": REMOVE}, "metadata: is required"),
    ("no name", {"metadata.name": REMOVE}, "metadata.name: is required"),
    ("a name in capitals", {"metadata.name": "Web"}, "metadata.name: 'Web' is not a DNS name"),
    ("a name of 300 letters", {"metadata.name": "a" * 300}, "longer than 253"),
    ("a name with a path", {"metadata.name": "../etc"}, "metadata.name: '../etc' is not a DNS name"),
    ("a namespace with a path", {"metadata.namespace": "../x"}, "metadata.namespace: '../x' is not a DNS label"),
    ("a label of 64 letters", {"metadata.labels": {"a": "b" * 64}}, "metadata.labels[a]: the value is longer than 63"),
    ("a label with a blank", {"metadata.labels": {"a": "b c"}}, "metadata.labels[a]: 'b c' is not a label value"),
    ("a label that is a number", {"metadata.labels": {"a": 1}}, "metadata.labels[a]: expected a string"),
    ("an unknown field of metadata", {"metadata.nmae": "x"}, "metadata.nmae: unknown field"),
    ("an unknown field at the top", {"sepc": {}}, "sepc: unknown field"),
    ("an odd annotation", {"metadata.annotations": {"a b": "c"}}, "'a b' is not a valid key"),
    ("too long annotations", {"metadata.annotations": {"a": "x" * 300_000}}, "longer than 262144 bytes in all"),
]
BROKEN = [
    ("a tab", "a:\n\t- b", "line 2"),
    ("a bracket that stays open", "a: [1, 2", "line"),
    ("a key twice", "kind: Pod\nkind: Pod", "the key 'kind' is there twice"),
    ("a fraction as key", "1.5: x", "the key 1.5 is not a string"),
    ("a tag", "a: !!python/object:os.system x", "is not allowed"),
    ("a merge key", "a: &x {b: c}\nd: {<<: *x}", "merge keys (<<) are not supported"),
    ("an alias for nothing", "a: *b", "the alias *b stands for nothing"),
    ("a bomb of aliases", "a: &a [" + "x," * 9 + "x]\n" + "".join(
        f"{chr(98 + n)}: &{chr(98 + n)} [" + f"*{chr(97 + n)}," * 9 + f"*{chr(97 + n)}]\n" for n in range(6)
    ), "more than 50000 values"),
    ("nesting without end", "[" * 100 + "]" * 100, "nested deeper than 64"),
    ("infinity", "a: .inf", "is not a number that JSON knows"),
    ("a scalar for a document", "hello", "expected a mapping"),
    ("a list of unknown fields", "apiVersion: v1\nkind: List\nitms: []", "itms: unknown field"),
]  # fmt: skip


@dataclass(frozen=True)
class Refusals:
    """What one apply of many bad documents said: line of each document, by its number from 1."""

    code: int
    text: str

    def of(self, number: int) -> str:
        marker = f"stdin: document {number}:"
        found = [line for line in self.text.splitlines() if marker in f"{line}:" or f"{marker[:-1]} " in line]
        return "\n".join(found)


def _documents() -> list[dict[str, Any]]:
    made = [changed(base, bad.path, bad.value) for _, base, bad in RULES]
    for _, changes, _ in META:
        raw = dict(test_pods.POD)
        for path, value in changes.items():
            raw = changed(raw, path, value)
        made.append(raw)
    return made


@pytest.fixture(scope="module")
def refusals(place: Arena) -> Refusals:
    text = "\n---\n".join(json.dumps(raw) for raw in _documents())
    done = place.lab.run("apply", "-f", "-", text=text)
    return Refusals(done.returncode, done.stdout + done.stderr)


def test_one_apply_of_them_all_fails_and_says_that_nothing_was_changed(refusals: Refusals) -> None:
    assert refusals.code == 1
    assert "nothing was changed" in refusals.text


@pytest.mark.parametrize("index", range(len(RULES)), ids=lambda i: f"{RULES[i][0]}-{RULES[i][2].path}-{i}")
def test_a_field_that_breaks_its_rule_is_refused_by_document_field_and_reason(
    refusals: Refusals, note: Note, index: int
) -> None:
    kind, _, bad = RULES[index]
    told = refusals.of(index + 1)
    assert f"{bad.at or field(bad.path)}: " in told
    assert bad.why in told
    value = "left out" if bad.value is REMOVE else repr(bad.value)
    note(f"YAML: {kind}", f"{bad.at or field(bad.path)}: {bad.why}", f"{bad.path} = {value}", told.strip())


@pytest.mark.parametrize("index", range(len(META)), ids=lambda i: META[i][0])
def test_what_every_object_has_is_checked(refusals: Refusals, note: Note, index: int) -> None:
    name, _, why = META[index]
    told = refusals.of(len(RULES) + index + 1)
    assert why in told
    note("YAML: every object", why, name, told.strip())


@pytest.mark.parametrize(("name", "text", "why"), BROKEN, ids=lambda value: value[:30] if value.isprintable() else "")
def test_yaml_that_is_broken_or_a_trick_is_refused(place: Arena, note: Note, name: str, text: str, why: str) -> None:
    done = place.lab.run("apply", "-f", "-", text=text)
    assert done.returncode == 1
    assert why in done.stderr
    assert "Traceback" not in done.stderr
    note("YAML: text", why, name, done.stderr.strip().splitlines()[-1])


_POD = pod_yaml("shop/fresh", SLEEP, node="n1", account="web")
_SERVICE = {"selector": {"app": "x"}, "ports": [{"port": 80}]}


def _service(name: str = "fresh", namespace: str = "shop", **spec: Any) -> str:
    return object_yaml("v1", "Service", name, namespace, spec={**_SERVICE, **spec})


def _pod(ips: str = "", **fields: Any) -> str:
    return pod_yaml("shop/fresh", SLEEP, annotations={"ambient.mesh/pod-ips": ips}, account="web", **fields)


ADMISSION: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "a namespace that is not there": (_service(namespace="nowhere"), 'namespaces "nowhere" not found'),
        "an account that is not there": (
            pod_yaml("shop/fresh", SLEEP, account="nobody"), 'serviceaccount "nobody" not found',
        ),
        "another node for a pod": (
            pod_yaml(WEB, SLEEP, node="n2", account="web"), "spec.nodeName: Forbidden: pod updates may not change",
        ),
        "another account for a pod": (pod_yaml(WEB, SLEEP, node="n1", account="batch"), "spec.serviceAccountName"),
        "another command for a pod": (pod_yaml(WEB, ["true"], node="n1", account="web"), "spec.containers[0].command"),
        "a pod without a command": (pod_yaml("shop/fresh", [], account="web"), "spec.containers[0].command: is req"),
        "an address outside every family": (_pod("10.0.0"), "is not an IP address"),
        "a loopback address for a pod": (_pod("127.0.0.1"), "127.0.0.1 cannot be a pod's address"),
        "a multicast address for a pod": (_pod("ff02::1"), "ff02::1 cannot be a pod's address"),
        "two addresses of one family": (_pod("192.0.2.1,192.0.2.2"), "at most one address of each family"),
        "an address outside the service ranges": (_service(clusterIP="192.0.2.9"), "is not a free address of the"),
        "a service's address changed": (_service("far", clusterIP="10.65.0.99"), "spec.clusterIP"),
        "a node's range": (
            object_yaml("v1", "Node", "n9", spec={"podCIDR": "10.9.0.0/24"}), "a node's pod range is given by the lab",
        ),
    }
)  # fmt: skip


@pytest.mark.parametrize("name", ADMISSION)
def test_what_the_mesh_cannot_hold_is_refused_and_made_by_nobody(place: Arena, note: Note, name: str) -> None:
    text, why = ADMISSION[name]
    done = place.lab.run("apply", "--no-wait", "-f", "-", text=text)
    assert done.returncode == 1, done.stdout
    assert why in done.stderr
    note("lab apply", why, name, done.stderr.strip())


COMMANDS: list[tuple[str, list[str], int, str]] = [
    ("no such command", ["dance"], 2, "no command 'dance'"),
    ("no such verb", ["lab", "dance"], 2, "invalid choice: 'dance'"),
    ("no verb", ["lab"], 2, "usage:"),
    ("a lab's name in capitals", ["lab", "status", "--name", "Lab"], 2, "not a lab name: 'Lab'"),
    ("a lab's name with a path", ["lab", "down", "--name", "../x"], 2, "not a lab name: '../x'"),
    ("a lab's name of 40 letters", ["lab", "status", "--name", "a" * 40], 2, "at most 32"),
    ("a lab that is not there", ["lab", "status", "--name", "nobody-made-it"], 1, "no lab 'nobody-made-it'"),
    ("no file", ["lab", "apply", "--name", "@"], 2, "the following arguments are required: -f"),
    ("a file that is not there", ["lab", "apply", "--name", "@", "-f", "/nowhere.yaml"], 1, "/nowhere.yaml"),
    ("a file that is no text", ["lab", "apply", "--name", "@", "-f", "/bin/ls"], 1, "/bin/ls"),
    ("an unknown option", ["lab", "status", "--name", "@", "--quick"], 2, "unrecognized arguments: --quick"),
    ("a short form of an option", ["lab", "status", "--na", "@"], 2, "unrecognized arguments"),
    ("an unknown form of output", ["lab", "status", "--name", "@", "-o", "xml"], 2, "invalid choice: 'xml'"),
    ("a negative time", ["lab", "apply", "--name", "@", "-f", "-", "--timeout", "-1"], 2, "--timeout"),
    ("a time that is no number", ["lab", "label", "--name", "@", "namespace", "shop", "a=b", "--timeout", "x"], 2,
     "invalid _seconds value: 'x'"),
    ("a label without =", ["lab", "label", "--name", "@", "namespace", "shop", "ambient"], 2, "neither KEY=VALUE nor"),
    ("a label with blanks", ["lab", "label", "--name", "@", "namespace", "shop", "a=b c"], 1, "not a label value"),
    ("a label for a namespace that is not there", ["lab", "label", "--name", "@", "namespace", "no", "a=b"], 1, "no"),
    ("a label for a pod", ["lab", "label", "--name", "@", "pod", "x", "a=b"], 2, "invalid choice: 'pod'"),
    ("a pod that is not there", ["lab", "exec", "--name", "@", "shop/nobody", "--", "true"], 1, "nobody"),
    ("a pod without a namespace", ["lab", "exec", "--name", "@", "web", "--", "true"], 1, "web"),
    ("the log of no node", ["lab", "logs", "--name", "@", "n9", "agent"], 1, "n9"),
    ("the log of no component", ["lab", "logs", "--name", "@", "n1", "envoy"], 2, "envoy"),
    ("a node that is not there", ["lab", "reboot", "--name", "@", "n9"], 1, "n9"),
    ("another setting for a lab that is up", ["lab", "up", "--name", "@", "--no-mesh"], 1, "is up with other settings"),
    ("a setting without =", ["lab", "up", "--name", "@", "--env", "DEBUG"], 2, "KEY=VALUE"),
    ("a setting of no part", ["lab", "up", "--name", "@", "--env", "envoy:A=b"], 2, "KEY=VALUE"),
    ("a flow filter without =", ["flows", "--name", "@", "denied"], 2, "denied"),
    ("a flow filter of no key", ["flows", "--name", "@", "colour=red"], 2, "colour"),
    ("a negative number of flows", ["flows", "--name", "@", "--last", "-1"], 2, "--last is negative"),
    ("a destination without a port", ["explain", "--name", "@", WEB, FAR], 2, "not a destination"),
    ("a destination of port 0", ["explain", "--name", "@", WEB, f"{FAR}:0"], 2, "0"),
    ("a source that is not there", ["explain", "--name", "@", "shop/nobody", f"{FAR}:80"], 1, "nobody"),
    ("pods of no node", ["workloads", "--name", "@", "--node", "n9"], 1, "n9"),
    ("a shell we do not know", ["completion", "tcsh"], 2, "invalid choice: 'tcsh'"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "argv", "code", "why"), COMMANDS, ids=lambda value: value if isinstance(value, str) else ""
)
def test_a_wrong_command_line_is_refused_in_words(
    place: Arena, note: Note, tmp_path: Path, name: str, argv: list[str], code: int, why: str
) -> None:
    words = [place.lab.name if word == "@" else word for word in argv]
    command = [sys.executable, "-m", "ambient", *words]
    done = subprocess.run(command, input="", capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == code, done.stdout + done.stderr
    assert why in done.stderr
    assert "Traceback" not in done.stderr
    note("command line", why, f"ambient {' '.join(argv)}", f"exit {code}: {done.stderr.strip().splitlines()[-1]}")
