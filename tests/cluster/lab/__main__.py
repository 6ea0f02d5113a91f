"""`python -m tests.cluster.lab VERB`: the cluster lab by hand; `./dev cluster` is the same with its set-up."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.cluster.lab import cluster, programs


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="./dev cluster", description="a real Kubernetes on this machine")
    verbs = parser.add_subparsers(dest="verb", required=True)
    for verb, about in (
        ("up", "make or complete it: two nodes, n1 with kube-proxy in iptables mode, n2 in nftables mode"),
        ("down", "end and remove everything of it"),
        ("kubectl", "kubectl on it"),
        ("node", "run a command inside a node"),
        ("status", "its processes, nodes and pods"),
        ("load", "import image archives into every node"),
        ("crash", "pull a node's plug"),
        ("back", "switch a crashed node on again"),
        ("restart", "kill kubelet (or containerd, kube-proxy) of a node, which starts it again"),
        ("programs", "have kubectl, helm and the cluster's programs, and say where"),
    ):
        made = verbs.add_parser(verb, help=about, description=about)
        made.add_argument("--name", default="lab", help="which cluster (lab); right after the verb")
        if verb == "up":
            made.add_argument("--nodes", type=int, default=2)
        if verb in ("node", "crash", "back", "restart"):
            made.add_argument("number", type=int, help="1 for n1")
        if verb == "restart":
            made.add_argument("program", nargs="?", default="kubelet", choices=("kubelet", "containerd", "kube-proxy"))
        if verb == "load":
            made.add_argument("archives", nargs="+", type=Path)
    return parser


def main(given: list[str]) -> int:
    # What kubectl or a command in a node is told is not ours to read: "--name" right after the verb is.
    passed = given[:1] in (["kubectl"], ["node"])
    ours = (3 if given[1:2] == ["--name"] else 1) + (given[0] == "node") if passed else len(given)
    arguments, argv = _parser().parse_args(given[:ours]), given[ours:]
    name = arguments.name
    match arguments.verb:
        case "up":
            print(cluster.timed_up(name, arguments.nodes))
        case "down":
            cluster.down(name)
        case "kubectl":
            cluster.run_kubectl(cluster.existing(name), argv)
        case "node":
            cluster.run_inside(cluster.existing(name), arguments.number, argv or ["bash"])
        case "status":
            print(cluster.status(cluster.existing(name)))
        case "load":
            cluster.load(cluster.existing(name), arguments.archives)
        case "crash":
            cluster.crash(cluster.existing(name), arguments.number)
        case "back":
            cluster.back(cluster.existing(name), arguments.number)
        case "restart":
            cluster.restart(cluster.existing(name), arguments.number, arguments.program)
        case "programs":
            programs.ready(programs.KUBE, programs.ETCD, programs.COREDNS, programs.HELM)
            print(programs.BIN)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
