"""The rules of the house hold for this tree; and each rule, shown a planted fault, finds it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import pytest

from ambient.model import address
from tests.support import architecture

ROOT = Path(__file__).parent.parent

TESTED_ELSEWHERE: Mapping[str, str] = MappingProxyType(
    {
        "ambient.agent.captures": "tests/lab/test_agent_by_rules.py",
        "ambient.agent.kernel": "tests/lab/test_agent.py",
        "ambient.agent.no_programs": "tests/lab/test_agent_by_rules.py",
        "ambient.agent.rule_kernel": "tests/lab/test_agent_by_rules.py",
        "ambient.control.derive_judged": "tests/ambient/control/test_derive_front.py",
        "ambient.agent.uninstall": "tests/lab/test_agent.py",
        "ambient.cli.check": "tests/ambient/cli/test_reads.py",
        "ambient.cli.cluster_objects": "tests/cluster/test_uninstall.py",
        "ambient.cli.connections": "tests/ambient/cli/test_reads.py",
        "ambient.cli.demo.story": "tests/journeys/test_demo.py",
        "ambient.cli.gather": "tests/ambient/cli/test_main.py",
        "ambient.cli.judgement": "tests/ambient/cli/test_explain.py",
        "ambient.cli.lab": "tests/lab/test_lab_apply.py",
        "ambient.cli.uninstall": "tests/cluster/test_uninstall.py",
        "ambient.cli.upgrade": "tests/cluster/test_uninstall.py",
        "ambient.cli.names": "tests/ambient/cli/test_explain.py",
        "ambient.cli.pods": "tests/ambient/cli/test_reads.py",
        "ambient.cli.policies": "tests/ambient/cli/test_reads.py",
        "ambient.cli.process": "tests/ambient/cli/test_reads.py",
        "ambient.cli.services": "tests/ambient/cli/test_reads.py",
        "ambient.cli.table": "tests/ambient/cli/test_reads.py",
        "ambient.cli.version": "tests/ambient/cli/test_reads.py",
        "ambient.cli.workloads": "tests/ambient/cli/test_reads.py",
        "ambient.agent.rule_table": "tests/lab/test_rule_table.py",
        "ambient.agent.upkeep": "tests/lab/test_agent.py",
        "ambient.agent.kernel_path": "tests/lab/test_same_node.py",
        "ambient.datapath.batch": "tests/bpf/test_direct.py",
        "ambient.datapath.clsact": "tests/bpf/test_ways.py",
        "ambient.datapath.hooked": "tests/bpf/test_ways.py",
        "ambient.datapath.bpfsys": "tests/bpf/test_lifecycle.py",
        "ambient.datapath.holding": "tests/bpf/test_holding.py",
        "ambient.datapath.exchange": "tests/bpf/test_versions.py",
        "ambient.datapath.unnoted": "tests/bpf/test_versions.py",
        "ambient.datapath.load_bcc": "tests/bpf/conftest.py",
        "ambient.datapath.load_object": "tests/bpf/conftest.py",
        "ambient.datapath.maps": "tests/bpf/test_lifecycle.py",
        "ambient.datapath.namespaces": "tests/lab/test_agent_by_rules.py",
        "ambient.datapath.nft": "tests/lab/test_agent_by_rules.py",
        "ambient.datapath.rule_tables": "tests/lab/test_agent_by_rules.py",
        "ambient.datapath.tc_sockets": "tests/bpf/test_named_listeners.py",
        "ambient.datapath.pod_net": "tests/bpf/test_enrolment.py",
        "ambient.datapath.programs": "tests/bpf/test_lifecycle.py",
        "ambient.lab.lab": "tests/lab/test_lab_apply.py",
        "ambient.waypoint.agent.server": "tests/lab/test_waypoint.py",
        "ambient.lab.sync": "tests/lab/test_lab_apply.py",
    }
)
"""Modules without a test file of their own name, and where they are tested."""

PORTS: Mapping[str, int] = MappingProxyType(
    {
        "OUTBOUND_PORT": address.OUTBOUND_PORT,
        "PLAINTEXT_PORT": address.PLAINTEXT_PORT,
        "HBONE_PORT": address.HBONE_PORT,
        "DNS_PORT": address.DNS_PORT,
        "PROXY_MARK": address.PROXY_MARK,
        "LOOP_MARK": address.LOOP_MARK,
    }
)


def _mirror(root: Path) -> list[str]:
    return architecture.mirror(root, TESTED_ELSEWHERE)


def _ports(root: Path) -> list[str]:
    return architecture.ports(root, PORTS)


RULES: Mapping[str, Callable[[Path], list[str]]] = MappingProxyType(
    {
        "arrows": architecture.arrows,
        "cores": architecture.cores,
        "light workers": architecture.light_workers,
        "foreign functions": architecture.foreign_functions,
        "lengths": architecture.lengths,
        "output": architecture.output,
        "names": architecture.names,
        "docstrings": architecture.docstrings,
        "machine paths": architecture.machine_paths,
        "tests": architecture.slow_or_patched_tests,
        "entering": architecture.entering,
        "mirror": _mirror,
        "ports": _ports,
    }
)


@pytest.mark.parametrize("rule", RULES)
def test_the_tree_keeps_the_rule(rule: str) -> None:
    findings = RULES[rule](ROOT)
    assert not findings, "\n" + "\n".join(findings)


FAULTS = [
    (
        "arrows",
        "ambient/model/decide.py",
        "from ambient.kube import objects",
        "ambient.model.decide imports ambient.kube",
    ),
    ("arrows", "ambient/control/server.py", "import ambient.agent.enrol", "imports ambient.agent.enrol: against"),
    ("arrows", "ambient/cli/pods.py", "from ambient.control import derive", "against the arrows"),
    ("arrows", "ambient/lab/pods.py", "from ztunnel import config", "ambient never imports ztunnel"),
    ("arrows", "ambient/lab/pods.py", "from tests.support import x", "nothing imports tests"),
    ("arrows", "ambient/xds/x.py", "def f():\n    from ..zds import codec", "ambient.zds.codec: against the arrows"),
    ("arrows", "ambient/gossip/x.py", "", "not in the table"),
    ("arrows", "ztunnel/app.py", "from ambient.kube import objects", "ztunnel.app imports ambient.kube.objects"),
    ("cores", "ambient/model/decide.py", "import time", "imports time: a core"),
    ("cores", "ambient/ca/issue.py", "from asyncio import Queue", "imports asyncio.Queue: a core"),
    ("cores", "ztunnel/hbone/frames.py", "import ssl", "imports ssl"),
    ("cores", "ambient/control/derive.py", "import socket", "imports socket"),
    ("light workers", "ztunnel/worker/main.py", "import grpc", "too heavy"),
    ("light workers", "ztunnel/proxy/x.py", "from google.protobuf import message", "too heavy"),
    ("foreign functions", "ztunnel/proxy/x.py", "import ctypes", "ctypes is for"),
    ("foreign functions", "ambient/lab/x.py", "from ctypes import CDLL", "ctypes is for"),
    ("lengths", "ambient/lab/x.py", "pass\n" * 401, "401 lines"),
    ("lengths", "bpf/x.bpf.c", "int x;\n" * 401, "401 lines"),
    ("output", "ztunnel/proxy/x.py", "print('x')", "print outside"),
    ("names", "ambient/lab/x.py", "class PodManager: ...", "PodManager is a vague name"),
    ("names", "ambient/lab/utils.py", "", "a vague name"),
    ("names", "ambient/lab/x.py", "x = 1  # TO" + "DO: later", "a promise"),
    ("names", "ambient/lab/x.py", "def f():\n    global y\n    y = 1", "writes module state"),
    ("docstrings", "ambient/lab/x.py", "x = 1", "no docstring"),
    ("machine paths", "docs/x.md", "see /wo" + "rk/there", "docs/x.md: names"),
    ("tests", "tests/lab/test_x.py", "import time\ntime.sleep(1)", "sleeps"),
    ("tests", "tests/lab/test_x.py", "from unittest.mock import patch", "imports unittest.mock.patch"),
    ("entering", "tests/bpf/test_x.py", 'run("ip", "netns", ' + '"exec", name)', '"netns", ' + '"exec"'),
    ("entering", "ambient/lab/x.py", 'run(["ip", ' + '"-n", name])', '"ip", ' + '"-n"'),
    ("mirror", "ambient/lab/x.py", "def f(a):\n    a += 1\n    return a", "no tests/ambient/lab/test_x.py"),
    ("mirror", "tests/ambient/lost/test_x.py", "", "tests nothing that exists"),
    ("ports", "bpf/include/mesh.h", "#define OUTBOUND_PORT 15002", "OUTBOUND_PORT is [15002], the model says 15001"),
    ("ports", "bpf/include/mesh.h", "", "HBONE_PORT is not defined"),
]


@pytest.mark.parametrize(("rule", "file", "text", "finding"), FAULTS)
def test_the_rule_finds_a_planted_fault(tmp_path: Path, rule: str, file: str, text: str, finding: str) -> None:
    planted = tmp_path / file
    planted.parent.mkdir(parents=True)
    planted.write_text(text)
    assert any(finding in found for found in RULES[rule](tmp_path)), RULES[rule](tmp_path)


def test_a_heavy_library_is_found_behind_a_chain_of_imports(tmp_path: Path) -> None:
    for file, text in {
        "ztunnel/__init__.py": "",
        "ztunnel/worker/__init__.py": "",
        "ztunnel/worker/main.py": "from ambient.xds import codec",
        "ambient/__init__.py": "",
        "ambient/xds/__init__.py": "from ambient.xds.stream import Stream",
        "ambient/xds/codec.py": "",
        "ambient/xds/stream.py": "import grpc",
    }.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(text)
    assert architecture.light_workers(tmp_path) == [
        "ambient.xds.stream imports grpc: too heavy for a worker (reached from ztunnel.worker.main)"
    ]


def test_an_empty_tree_breaks_no_rule_but_the_missing_ports(tmp_path: Path) -> None:
    assert {rule for rule in RULES if rule not in {"ports", "mirror"} and RULES[rule](tmp_path)} == set()
